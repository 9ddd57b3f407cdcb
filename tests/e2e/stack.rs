//! A stack as a person starts it, in a folder of its own, and its public doors.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A running (or stopped) stack. Dropping it stops it.
pub(crate) struct Stack {
    folder: tempfile::TempDir,
    pub(crate) flags: Vec<&'static str>,
    environment: Vec<(&'static str, &'static str)>,
}

/// What a program said and how it ended.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.out, self.err))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Stack {
    /// A folder in which nothing runs yet. World-readable on the way, because the servers of root are another user.
    pub(crate) fn stopped() -> Self {
        let folder = tempfile::Builder::new().prefix("airstream e2e ").tempdir_in(std::env::temp_dir()).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, flags: Vec::new(), environment: Vec::new() }
    }

    /// Up and ready.
    pub(crate) fn up(flags: &[&'static str]) -> Self {
        Self::up_with(flags, &[])
    }

    /// Up and ready, and configured otherwise.
    pub(crate) fn up_with(flags: &[&'static str], environment: &[(&'static str, &'static str)]) -> Self {
        let mut stack = Self::stopped();
        (stack.flags, stack.environment) = (flags.to_vec(), environment.to_vec());
        stack.start();
        stack
    }

    pub(crate) fn start(&self) {
        let flags: Vec<&str> =
            ["up", "--detach", "--port", "0"].into_iter().chain(self.flags.iter().copied()).collect();
        let said = self.run(&flags);
        assert_eq!(said.code, 0, "{}", said.err);
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_airstream"));
        command.arg("--data-dir").arg(self.data_dir()).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["AIRSTREAM_URL", "AIRSTREAM_TOKEN", "AIRSTREAM_CONTEXT", "NO_COLOR"] {
            command.env_remove(name);
        }
        // Whoever runs the tests may be signed in somewhere.
        command.env("XDG_CONFIG_HOME", self.folder.path().join("config"));
        command.envs(self.environment.iter().copied());
        command
    }

    /// The command line, to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        self.command().args(arguments).output().unwrap().into()
    }

    /// The same with something to read.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Said {
        use std::io::Write as _;
        let mut command = self.command();
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap().into()
    }

    pub(crate) fn status(&self) -> Value {
        let said = self.run(&["status", "--json"]);
        assert_eq!(said.code, 0, "{}", said.err);
        said.json()
    }

    /// Ends our process without any good-bye; its servers go with it.
    pub(crate) fn kill(&self) {
        let pid = self.status()["pid"].as_u64().unwrap();
        let done = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(done.success());
        let gone = || !Path::new(&format!("/proc/{pid}")).exists() || is_zombie(pid);
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while !gone() {
            assert!(std::time::Instant::now() < until, "process {pid} survives kill -9");
            std::thread::yield_now();
        }
    }

    /// A stock NATS client, as the development user.
    pub(crate) async fn nats(&self) -> async_nats::Client {
        let nats = self.status()["nats"].clone();
        self.nats_as(text(&nats, "user"), text(&nats, "password"), text(&nats, "inbox_prefix")).await.unwrap()
    }

    /// The log and the queues, as who may look at them.
    pub(crate) async fn log(&self) -> async_nats::jetstream::Context {
        let reader = self.status()["nats"]["reader"].clone();
        let client = self.nats_as(text(&reader, "user"), text(&reader, "password"), "_INBOX".to_owned()).await;
        async_nats::jetstream::new(client.unwrap())
    }

    /// A stock NATS client, as anybody.
    pub(crate) async fn nats_as(
        &self,
        user: String,
        password: String,
        inbox: String,
    ) -> Result<async_nats::Client, async_nats::ConnectError> {
        let options = async_nats::ConnectOptions::with_user_and_password(user, password).custom_inbox_prefix(inbox);
        let url = text(&self.status()["nats"], "url");
        options.connect(url.split(',').collect::<Vec<_>>().as_slice()).await
    }

    pub(crate) fn http(&self) -> Http {
        let status = self.status();
        let text = |key: &str| status[key].as_str().unwrap().to_owned();
        // One provider for the process; the second call finds the first one's.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Http { client: reqwest::Client::new(), url: text("http"), token: Some(text("token")) }
    }

    pub(crate) async fn postgres(&self) -> sqlx::PgConnection {
        use sqlx::Connection;
        sqlx::PgConnection::connect(self.status()["postgres"].as_str().unwrap()).await.unwrap()
    }
}

fn text(document: &Value, key: &str) -> String {
    document[key].as_str().unwrap_or_else(|| panic!("no {key} in {document}")).to_owned()
}

fn is_zombie(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

/// The HTTP door.
#[derive(Clone)]
pub(crate) struct Http {
    pub(crate) client: reqwest::Client,
    pub(crate) url: String,
    pub(crate) token: Option<String>,
}

impl Http {
    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends JSON, expects a status, gives the body.
    pub(crate) async fn json(&self, method: &str, path: &str, body: Option<Value>, expected: u16) -> Value {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        assert_eq!(status, expected, "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.json("GET", path, None, 200).await
    }

    /// A run, once it is in one of these states.
    pub(crate) async fn run_in(&self, run: &str, wanted: &[&str]) -> Value {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let response = self.request("GET", &format!("/v1/workflows/runs/{run}")).send().await.unwrap();
            let found: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            if found["status"].as_str().is_some_and(|status| wanted.contains(&status)) {
                return found;
            }
            assert!(std::time::Instant::now() < until, "the run did not get to {wanted:?}: {found:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn define(&self, id: &str, steps: Value) {
        let document = serde_json::json!({ "workflow_id": id, "steps": steps, "max_retries": 3 });
        self.json("PUT", &format!("/v1/workflows/{id}"), Some(document), 200).await;
    }

    pub(crate) async fn start(&self, workflow: &str, run: &str, input: Value) {
        let body = serde_json::json!({ "input": input, "run_id": run });
        self.json("POST", &format!("/v1/workflows/{workflow}/runs"), Some(body), 201).await;
    }
}
