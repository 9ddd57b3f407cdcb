//! `airstream serve` as several processes on servers that are somebody else's.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use stories::{Servers, eventually};

use crate::stack::{Http, Stack};

/// External servers, and processes on them.
pub(crate) struct Shared {
    pub(crate) servers: Servers,
    stack: Stack,
    lease_ms: u64,
}

/// One process. Dropping it kills it.
pub(crate) struct Serving {
    child: Child,
    pub(crate) http: Http,
    log: std::path::PathBuf,
}

impl Shared {
    pub(crate) async fn new(lease_ms: u64) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shared = Self { servers: Servers::fresh().await.unwrap(), stack: Stack::stopped(), lease_ms };
        let migrated = shared.command().args(["migrate", "--status"]).output().unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        shared
    }

    fn command(&self) -> Command {
        let mut command = self.stack.command();
        command
            .env("AIRSTREAM__NATS__URL", &self.servers.nats_url)
            .env("AIRSTREAM__NATS__USER", &self.servers.credentials.user)
            .env("AIRSTREAM__NATS__PASSWORD", &self.servers.credentials.password)
            .env("AIRSTREAM__POSTGRES__URL", &self.servers.postgres_url)
            .env("AIRSTREAM__DEVELOPMENT__TOKEN", "a-token-for-tests")
            .env("AIRSTREAM__IDENTITY__MASTER_KEY", "dGhlLW1hc3Rlci1rZXktb2YtdGhlLXRlc3RzLTMyLWI=")
            // One address for all of them, as behind a balancer: what one signs the others believe.
            .env("AIRSTREAM__IDENTITY__PUBLIC_URL", "https://air.example.org")
            .env("AIRSTREAM__MAIL__MAILBOX_DIR", self.mailbox_dir())
            .env("AIRSTREAM__INSTANCE__LEASE_MS", self.lease_ms.to_string());
        command
    }

    /// Where their mails lie.
    pub(crate) fn mailbox_dir(&self) -> std::path::PathBuf {
        self.stack.folder().join("mailbox")
    }

    /// Starts a process and waits until it is ready.
    pub(crate) async fn serve(&self, name: &str) -> Serving {
        self.serve_with(name, &[]).await
    }

    /// The same, configured otherwise.
    pub(crate) async fn serve_with(&self, name: &str, environment: &[(&str, String)]) -> Serving {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = self.stack.folder().join(format!("{name}.log"));
        let mut command = self.command();
        command.envs(environment.iter().map(|(name, value)| (*name, value)));
        command.env("AIRSTREAM__HTTP__BIND", format!("127.0.0.1:{port}"));
        let stderr = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.arg("serve").stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let (client, url) = (reqwest::Client::new(), format!("http://127.0.0.1:{port}"));
        let serving = Serving { child, http: Http { client, url, token: Some("a-token-for-tests".into()) }, log };
        let probe = async || {
            serving.http.request("GET", "/readyz").send().await.is_ok_and(|answer| answer.status().is_success())
        };
        eventually("it is ready", probe).await;
        eventually("it says who it is", async || serving.said("ready").is_some()).await;
        serving
    }
}

impl Serving {
    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success(), "it did not stop in order");
    }

    /// The last line of its log whose message contains this.
    pub(crate) fn said(&self, words: &str) -> Option<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let message = |line: &Value| line.pointer("/fields/message").or(line.get("message")).map(ToString::to_string);
        lines.into_iter().find(|line| message(line).is_some_and(|message| message.contains(words)))
    }

    pub(crate) fn instance(&self) -> String {
        let line = self.said("ready").unwrap();
        let found = line.pointer("/fields/instance").or(line.get("instance"));
        found.and_then(Value::as_str).unwrap_or_else(|| panic!("no instance in {line}")).to_owned()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("the last lines of {}:\n{}", self.log.display(), last.join("\n"));
        }
    }
}

/// What an instance does, as any of them tells.
pub(crate) async fn leases(http: &Http, instance: &str) -> Vec<String> {
    let found = http.get("/v1/instances").await;
    let items = found["items"].as_array().unwrap();
    let Some(item) = items.iter().find(|item| item["instance"] == instance) else { return Vec::new() };
    item["leases"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}
