//! nats-server: its configuration, its addresses, and when it is ready.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::directory::Directory;
use crate::error::StartError;
use crate::find::{Chosen, Version};
use crate::leftovers;
use crate::logs;
use crate::options::{NatsUser, Options};
use crate::progress::{Child, Progress, Report};
use crate::secrets::{Secrets, write_private};
use crate::state::{Process, StateFile};
use crate::supervise::{Failures, Server, Supervisor};
use crate::users::RunAs;

/// The user that may do everything in its account.
const INTERNAL_USER: &str = "airstream";

/// How to connect to NATS. `Debug` leaves the passwords out.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsAddress {
    /// `nats://127.0.0.1:<port>`, or the URL that was given.
    pub url: String,
    /// The user that may do everything in account `APP`; `None` for an external server, whose URL says it all.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// `http://127.0.0.1:<port>` with `/healthz`, `/varz`, `/jsz`; `None` for an external server.
    pub monitor_url: Option<String>,
    /// Passwords of [`Options::nats_users`] and of `sys`, by name.
    pub users: BTreeMap<String, String>,
    /// Its version; `None` for an external server.
    pub version: Option<String>,
}

impl fmt::Debug for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL of an external server may contain a password.
        let url = if self.user.is_some() { &self.url } else { "(external)" };
        f.debug_struct("NatsAddress").field("url", &url).field("user", &self.user).finish_non_exhaustive()
    }
}

impl NatsAddress {
    pub(crate) fn external(url: String) -> NatsAddress {
        NatsAddress { url, user: None, password: None, monitor_url: None, users: BTreeMap::new(), version: None }
    }
}

/// One account, with the passwords of its users by their full names.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) name: String,
    /// The user that may do everything, and its password.
    pub(crate) internal: (String, String),
    /// The other users: the name in [`NatsUser`], the full name, the password.
    pub(crate) users: Vec<(NatsUser, String, String)>,
}

/// A running NATS with the ways to it.
pub(crate) struct Nats {
    pub(crate) address: NatsAddress,
    /// `T00`, `T01`, …
    pub(crate) test_accounts: Vec<Account>,
    pub(crate) supervisor: Supervisor,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    client: u16,
    monitor: u16,
}

struct NatsServer {
    chosen: Chosen,
    folder: PathBuf,
    log: PathBuf,
    run_as: Option<RunAs>,
    instance: String,
    sync_always: bool,
    accounts: Vec<Account>,
    sys_password: String,
    /// Known after the first start; from then on they stay as they are.
    ports: Arc<Mutex<Option<Ports>>>,
    state: Arc<StateFile>,
}

/// Starts NATS on the ports it had last time, if they are still free.
pub(crate) fn start(
    options: &Options,
    chosen: Chosen,
    directory: &Directory,
    state: &Arc<StateFile>,
    secrets: &Mutex<Secrets>,
    failures: &Failures,
    report: &Report,
) -> Result<Nats, StartError> {
    let before = state.get();
    refuse_downgrade(directory, before.nats.version.as_deref(), chosen.version)?;
    let folder = directory.nats();
    for sub in ["jetstream", "ports"] {
        directory.make_for_servers(&folder.join(sub))?;
    }
    let log = directory.log().join("nats.log");
    logs::rotate(&log).map_err(|error| StartError::io("rotate", &log, error))?;
    let (accounts, sys_password) = make_accounts(options, &mut secrets.lock().unwrap_or_else(PoisonError::into_inner))?;
    let remembered = match (before.nats.port, before.nats.monitor_port) {
        (Some(client), Some(monitor)) if is_free(client) && is_free(monitor) => Some(Ports { client, monitor }),
        _ => None,
    };
    let sync_always = options.nats_sync_always && !options.ephemeral;
    let ports = Arc::new(Mutex::new(remembered));
    let server = || {
        Box::new(NatsServer {
            chosen: chosen.clone(),
            folder: folder.clone(),
            log: log.clone(),
            run_as: directory.run_as().cloned(),
            instance: before.instance.clone(),
            sync_always,
            accounts: accounts.clone(),
            sys_password: sys_password.clone(),
            ports: ports.clone(),
            state: state.clone(),
        })
    };
    if !sync_always {
        let text = "acknowledged events may be lost in a power cut: the server does not wait for the disk".to_owned();
        report(&Progress::Notice { what: Child::Nats, text });
    }
    report(&Progress::Starting { what: Child::Nats });
    let started = Instant::now();
    let first_try = Supervisor::start(server(), options, failures.clone());
    let supervisor = match first_try {
        // Somebody took the port between our look and the start. Nobody has our address yet, so any other is as good.
        Err(StartError::PortTaken { .. }) if remembered.is_some() => {
            *lock(&ports) = None;
            Supervisor::start(server(), options, failures.clone())?
        }
        other => other?,
    };
    let Some(ports) = *lock(&ports) else {
        return Err(StartError::BadOptions("nats-server is ready and has no ports".to_owned()));
    };
    state.update(|state| {
        state.nats.port = Some(ports.client);
        state.nats.monitor_port = Some(ports.monitor);
        state.nats.version = Some(chosen.version_text());
    })?;
    let url = format!("nats://127.0.0.1:{}", ports.client);
    report(&Progress::Ready { what: Child::Nats, address: url.clone(), took: started.elapsed() });
    let mut accounts = accounts.into_iter();
    let app = accounts.next();
    let mut users: BTreeMap<String, String> = app
        .iter()
        .flat_map(|account| &account.users)
        .map(|(user, _, password)| (user.name.clone(), password.clone()))
        .collect();
    users.insert("sys".to_owned(), sys_password);
    let (user, password) = app.map(|account| account.internal).unzip();
    let address = NatsAddress {
        url,
        user,
        password,
        monitor_url: Some(format!("http://127.0.0.1:{}", ports.monitor)),
        users,
        version: Some(chosen.version_text()),
    };
    Ok(Nats { address, test_accounts: accounts.collect(), supervisor })
}

/// 2.12 and later take what a newer minor version has written offline instead of reading it.
fn refuse_downgrade(directory: &Directory, stored: Option<&str>, found: Version) -> Result<(), StartError> {
    let Some(stored) = stored else { return Ok(()) };
    match Version::parse(stored) {
        Some(version) if (version.major, version.minor) > (found.major, found.minor) => Err(StartError::Downgrade {
            data_dir: directory.path().to_owned(),
            stored: stored.to_owned(),
            found: format!("{}.{}.{}", found.major, found.minor, found.patch),
        }),
        _ => Ok(()),
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn lock(ports: &Mutex<Option<Ports>>) -> std::sync::MutexGuard<'_, Option<Ports>> {
    ports.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `APP` first, then the test accounts. User names are unique in a server, so those of test accounts get a prefix.
fn make_accounts(options: &Options, secrets: &mut Secrets) -> Result<(Vec<Account>, String), StartError> {
    for user in &options.nats_users {
        check_user(user)?;
    }
    let mut account = |name: String, prefix: &str, internal: &str| -> Result<Account, StartError> {
        let mut password = |user: &str| secrets.password(&format!("nats/{user}"));
        let internal = (internal.to_owned(), password(internal)?);
        let mut users = Vec::new();
        for user in &options.nats_users {
            let full = format!("{prefix}{}", user.name);
            let password = password(&full)?;
            users.push((user.clone(), full, password));
        }
        Ok(Account { name, internal, users })
    };
    let mut accounts = vec![account("APP".to_owned(), "", INTERNAL_USER)?];
    for number in 0..options.accounts {
        let prefix = format!("t{number:02}");
        accounts.push(account(format!("T{number:02}"), &format!("{prefix}-"), &prefix)?);
    }
    let sys = secrets.password("nats/sys")?;
    Ok((accounts, sys))
}

fn check_user(user: &NatsUser) -> Result<(), StartError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if user.name.is_empty() || !user.name.chars().all(allowed) || ["airstream", "sys"].contains(&user.name.as_str()) {
        return Err(StartError::BadOptions(format!("a NATS user cannot be called {:?}", user.name)));
    }
    let bad = |c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '\\';
    match user.publish.iter().chain(&user.subscribe).find(|subject| subject.is_empty() || subject.contains(bad)) {
        Some(subject) => Err(StartError::BadOptions(format!("{subject:?} is not a subject (user {})", user.name))),
        None => Ok(()),
    }
}

impl NatsServer {
    fn server_name(&self) -> String {
        format!("airstream-{}", self.instance)
    }

    fn configuration(&self, ports: Option<Ports>) -> String {
        let port = |port: Option<u16>| port.map_or("-1".to_owned(), |port| port.to_string());
        let mut text = String::from("# Written at every start; changes are lost.\n");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "server_name: {}", quoted(&self.server_name()));
        let _ = writeln!(text, "host: \"127.0.0.1\"");
        let _ = writeln!(text, "port: {}", port(ports.map(|ports| ports.client)));
        let _ = writeln!(text, "http: \"127.0.0.1:{}\"", port(ports.map(|ports| ports.monitor)));
        let _ = writeln!(text, "ports_file_dir: {}", quoted_path(&self.folder.join("ports")));
        let _ = writeln!(text, "jetstream {{");
        // The server adds a folder `jetstream` of its own.
        let _ = writeln!(text, "  store_dir: {}", quoted_path(&self.folder));
        if self.sync_always {
            let _ = writeln!(text, "  sync_interval: always");
        }
        let _ = writeln!(text, "}}\nsystem_account: SYS\naccounts {{");
        let _ = writeln!(text, "  SYS {{ users: [ {{ user: sys, password: \"{}\" }} ] }}", self.sys_password);
        for account in &self.accounts {
            let (user, password) = &account.internal;
            let _ = writeln!(text, "  {} {{\n    jetstream: enabled\n    users: [", account.name);
            let _ = writeln!(text, "      {{ user: \"{user}\", password: \"{password}\" }}");
            for (user, full, password) in &account.users {
                let _ = writeln!(
                    text,
                    "      {{ user: \"{full}\", password: \"{password}\", permissions: {{ publish: {}, subscribe: {} }} }}",
                    permission(&user.publish),
                    permission(&user.subscribe),
                );
            }
            let _ = writeln!(text, "    ]\n  }}");
        }
        text.push_str("}\n");
        text
    }

    fn read_ports(&self, pid: u32) -> Result<Ports, String> {
        #[derive(Deserialize)]
        struct PortsFile {
            nats: Vec<String>,
            monitoring: Vec<String>,
        }
        let ending = format!("_{pid}.ports");
        let entries = fs::read_dir(self.folder.join("ports")).map_err(|error| error.to_string())?;
        let file = entries.flatten().find(|entry| entry.file_name().to_string_lossy().ends_with(&ending));
        let file = file.ok_or("it has not written its ports yet")?;
        let text = fs::read(file.path()).map_err(|error| error.to_string())?;
        let found: PortsFile = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let port = |urls: &[String]| urls.first().and_then(|url| url.rsplit_once(':')?.1.parse::<u16>().ok());
        match (port(&found.nats), port(&found.monitoring)) {
            (Some(client), Some(monitor)) => Ok(Ports { client, monitor }),
            _ => Err("its ports file names no ports".to_owned()),
        }
    }
}

impl Server for NatsServer {
    fn which(&self) -> Child {
        Child::Nats
    }

    fn command(&self) -> Result<Command, StartError> {
        self.chosen.verify()?;
        let ports = self.folder.join("ports");
        for entry in fs::read_dir(&ports).map_err(|error| StartError::io("read", &ports, error))?.flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let configuration = self.folder.join("server.conf");
        write_private(&configuration, self.configuration(*lock(&self.ports)).as_bytes())
            .map_err(|error| StartError::io("write", &configuration, error))?;
        let mut command = Command::new(&self.chosen.path);
        command.arg("--config").arg(&configuration).current_dir(&self.folder);
        as_server(&mut command, &self.log, self.run_as.as_ref())?;
        if let Some(user) = &self.run_as {
            // Not through a link: the folder is the servers' and what is in it is theirs to replace.
            std::os::unix::fs::lchown(&configuration, Some(user.uid), Some(user.gid))
                .map_err(|error| StartError::io("change the owner of", &configuration, error))?;
        }
        Ok(command)
    }

    fn probe(&self, pid: u32) -> Result<(), String> {
        let known = *lock(&self.ports);
        let ports = match known {
            Some(ports) => ports,
            None => self.read_ports(pid)?,
        };
        // On a remembered port another stack's server may answer while ours is failing to get it.
        let varz = http_get(ports.monitor, "/varz")?;
        let server_name = json_field(&varz, "/server_name").and_then(|name| name.as_str().map(str::to_owned));
        if server_name.as_deref() != Some(&self.server_name()) {
            return Err("another server answers on its port".to_owned());
        }
        http_get(ports.monitor, "/healthz")?;
        if self.sync_always {
            let jsz = http_get(ports.monitor, "/jsz")?;
            let always = json_field(&jsz, "/config/sync_always").and_then(|always| always.as_bool());
            if always != Some(true) {
                return Err("it does not sync always, although it was told to".to_owned());
            }
        }
        *lock(&self.ports) = Some(ports);
        Ok(())
    }

    fn stop_signal(&self) -> Signal {
        Signal::SIGTERM
    }

    fn log(&self) -> &Path {
        &self.log
    }

    fn remember(&self, pid: Option<u32>) {
        let process = pid.map(|pid| Process::of(pid, &self.chosen.path));
        if let Err(error) = self.state.update(|state| state.nats.process = process) {
            tracing::warn!(%error, "could not write down the process of nats-server");
        }
    }
}

/// What both servers' commands have in common: no environment of ours, their log, their user.
pub(crate) fn as_server(command: &mut Command, log: &Path, run_as: Option<&RunAs>) -> Result<(), StartError> {
    use std::os::unix::process::CommandExt;
    let out = logs::open(log).map_err(|error| StartError::io("open", log, error))?;
    let err = out.try_clone().map_err(|error| StartError::io("open", log, error))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    command.env_clear().env("PATH", path).env("LC_ALL", "C").env("TZ", "UTC");
    if let Some(user) = run_as {
        command.uid(user.uid).gid(user.gid);
    }
    Ok(())
}

/// Ends what a killed parent has left.
pub(crate) fn stop_leftovers(directory: &Directory, state: &StateFile) -> usize {
    leftovers::stop(&directory.nats(), state.get().nats.process.as_ref(), Signal::SIGTERM)
}

/// An empty list of what is allowed would allow everything.
fn permission(subjects: &[String]) -> String {
    if subjects.is_empty() {
        return "{ deny: [\">\"] }".to_owned();
    }
    let quoted: Vec<String> = subjects.iter().map(|subject| quoted(subject)).collect();
    format!("{{ allow: [{}] }}", quoted.join(", "))
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn json_field(body: &str, pointer: &str) -> Option<serde_json::Value> {
    serde_json::from_str::<serde_json::Value>(body).ok()?.pointer(pointer).cloned()
}

/// One request to a loopback port; a status other than 200 is a reason to wait.
fn http_get(port: u16, path: &str) -> Result<String, String> {
    let request = || -> io::Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.take(4 * 1024 * 1024).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = request().map_err(|error| format!("{path}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split_whitespace().nth(1) == Some("200") { Ok(body.to_owned()) } else { Err(format!("{path}: {body}")) }
}
