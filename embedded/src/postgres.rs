//! PostgreSQL: its cluster, its socket, and when it is ready. It listens on a Unix socket only.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::directory::Directory;
use crate::error::StartError;
use crate::find::Chosen;
use crate::leftovers;
use crate::logs;
use crate::nats::as_server;
use crate::options::Options;
use crate::progress::{Child, Progress, Report, notice};
use crate::secrets::{Secrets, write_private};
use crate::spawn::spawn;
use crate::state::{Process, StateFile};
use crate::supervise::{Failures, Server, Supervisor};
use crate::users::RunAs;
use crate::wait;

const USER: &str = "airstream";
const DATABASE: &str = "airstream";
/// Its password's name in `secrets.json`.
const PASSWORD: &str = "postgres/airstream";
const SOCKET: &str = ".s.PGSQL.5432";
/// `initdb` takes half a second here; a slow disk may need a minute.
const INIT_TIMEOUT: Duration = Duration::from_secs(120);

/// How to connect to PostgreSQL. `Debug` leaves the password out.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresAddress {
    /// For sqlx and psql: `postgres:///airstream?host=<socket folder>&user=…&password=…`, or the URL that was given.
    pub url: String,
    /// The folder of the socket; `None` for an external server, like all that follows.
    pub socket_dir: Option<PathBuf>,
    /// The database, which is there from the first start on.
    pub database: Option<String>,
    /// The superuser.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// Its version.
    pub version: Option<String>,
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresAddress").field("socket_dir", &self.socket_dir).finish_non_exhaustive()
    }
}

impl PostgresAddress {
    pub(crate) fn external(url: String) -> PostgresAddress {
        PostgresAddress { url, socket_dir: None, database: None, user: None, password: None, version: None }
    }

    /// The same server and user, another database. `None` for an external server, whose URL may have any form.
    pub fn url_of(&self, database: &str) -> Option<String> {
        let (Some(socket), Some(user), Some(password)) = (&self.socket_dir, &self.user, &self.password) else {
            return None;
        };
        Some(socket_url(socket, user, password, database))
    }
}

/// A running PostgreSQL with the way to it.
pub(crate) struct Postgres {
    pub(crate) address: PostgresAddress,
    pub(crate) supervisor: Supervisor,
}

struct PostgresServer {
    chosen: Chosen,
    cluster: PathBuf,
    socket_dir: PathBuf,
    log: PathBuf,
    run_as: Option<RunAs>,
    fsync: bool,
    state: Arc<StateFile>,
}

/// Makes the cluster if there is none of this version, and starts it.
pub(crate) fn start(
    options: &Options,
    chosen: Chosen,
    directory: &Directory,
    state: &Arc<StateFile>,
    secrets: &Mutex<Secrets>,
    failures: &Failures,
    report: &Report,
) -> Result<Postgres, StartError> {
    let log = directory.log().join("postgres.log");
    logs::rotate(&log).map_err(|error| StartError::io("rotate", &log, error))?;
    let (password, forgotten) = {
        let mut secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = !secrets.knows(PASSWORD);
        (secrets.password(PASSWORD)?, forgotten)
    };
    let fsync = options.postgres_fsync && !options.ephemeral;
    let cluster = directory.postgres();
    let initialise = Initialise { chosen: &chosen, directory, log: &log, password: &password, fsync };
    set_aside_other_version(&cluster, &chosen, report)?;
    if !cluster.exists() {
        report(&Progress::Initialising { what: Child::Postgres });
        initialise.new_cluster(&cluster)?;
    } else {
        directory.give_to_servers(&cluster)?;
        leftovers::remove_stale_pid_file(&cluster, &cluster.join("postmaster.pid"));
        if forgotten {
            notice(
                report,
                Child::Postgres,
                "its password was not in secrets.json any more: PostgreSQL gets a new one".to_owned(),
            );
            initialise.new_password(&cluster)?;
        }
    }
    let socket_dir = directory.make_socket_folder()?;
    let server = PostgresServer {
        chosen: chosen.clone(),
        cluster,
        socket_dir: socket_dir.clone(),
        log,
        run_as: directory.run_as().cloned(),
        fsync,
        state: state.clone(),
    };
    report(&Progress::Starting { what: Child::Postgres });
    let started = Instant::now();
    let supervisor = Supervisor::start(Box::new(server), options, failures.clone())?;
    state.update(|state| state.postgres.version = Some(chosen.version_text()))?;
    report(&Progress::Ready {
        what: Child::Postgres,
        address: socket_dir.display().to_string(),
        took: started.elapsed(),
    });
    let address = PostgresAddress {
        url: socket_url(&socket_dir, USER, &password, DATABASE),
        socket_dir: Some(socket_dir),
        database: Some(DATABASE.to_owned()),
        user: Some(USER.to_owned()),
        password: Some(password),
        version: Some(chosen.version_text()),
    };
    Ok(Postgres { address, supervisor })
}

fn socket_url(socket_dir: &Path, user: &str, password: &str, database: &str) -> String {
    format!(
        "postgres:///{}?host={}&user={}&password={}",
        percent_encoded(database.as_bytes()),
        percent_encoded(socket_dir.as_os_str().as_encoded_bytes()),
        percent_encoded(user.as_bytes()),
        percent_encoded(password.as_bytes())
    )
}

fn percent_encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => text.push(char::from(*byte)),
            // Writing to a String cannot fail.
            other => drop(write!(text, "%{other:02X}")),
        }
    }
    text
}

/// A cluster belongs to one major version. Another one's is kept: the projections are rebuilt from the log,
/// and what is not in the log is still there.
fn set_aside_other_version(cluster: &Path, chosen: &Chosen, report: &Report) -> Result<(), StartError> {
    if !cluster.exists() {
        return Ok(());
    }
    let found = fs::read_to_string(cluster.join("PG_VERSION")).unwrap_or_default();
    let found = found.trim();
    if found == chosen.version.major.to_string() {
        return Ok(());
    }
    let label = if found.is_empty() { "unknown" } else { found };
    let mut number = 1;
    let kept = loop {
        let kept = cluster.with_file_name(format!("pg-{label}-kept-{number}"));
        if !kept.exists() {
            break kept;
        }
        number += 1;
    };
    fs::rename(cluster, &kept).map_err(|error| StartError::io("set aside", cluster, error))?;
    notice(
        report,
        Child::Postgres,
        format!(
            "the data was written by PostgreSQL {label} and this is {}: it is kept in {} and a new cluster is filled from the log",
            chosen.version_text(),
            kept.display()
        ),
    );
    Ok(())
}

/// What is done to a cluster while no server runs on it.
struct Initialise<'a> {
    chosen: &'a Chosen,
    directory: &'a Directory,
    log: &'a Path,
    password: &'a str,
    fsync: bool,
}

impl Initialise<'_> {
    /// Makes the cluster aside and moves it into place when it is complete: whoever is killed in between leaves nothing
    /// that looks like one.
    fn new_cluster(&self, cluster: &Path) -> Result<(), StartError> {
        let aside = cluster.with_file_name("pg-new");
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(|error| StartError::io("remove", &aside, error))?;
        }
        self.directory.make_for_servers(&aside)?;
        let password_file = aside.join("password");
        write_private(&password_file, self.password.as_bytes())
            .map_err(|error| StartError::io("write", &password_file, error))?;
        self.directory.give_to_servers(&password_file)?;
        let new = aside.join("pg");
        let locale = if cfg!(target_os = "linux") { "--locale=C.UTF-8" } else { "--locale=C" };
        let mut initdb = self.command("initdb", &aside);
        initdb.arg("--pgdata").arg(&new).arg("--pwfile").arg(&password_file);
        initdb.args(["--username", USER, "--encoding=UTF8", locale, "--no-sync", "--no-instructions"]);
        initdb.args(["--auth-local=scram-sha-256", "--auth-host=scram-sha-256"]);
        self.run(initdb, "", "creating the cluster")?;
        self.single_user(&new, &format!("CREATE DATABASE {DATABASE};"), "creating the database")?;
        if self.fsync {
            let mut sync = self.command("initdb", &aside);
            sync.arg("--sync-only").arg("--pgdata").arg(&new);
            self.run(sync, "", "writing the cluster to disk")?;
        }
        fs::rename(&new, cluster).map_err(|error| StartError::io("rename into place", &new, error))?;
        fs::remove_dir_all(&aside).map_err(|error| StartError::io("remove", &aside, error))
    }

    fn new_password(&self, cluster: &Path) -> Result<(), StartError> {
        let statement = format!("ALTER ROLE {USER} PASSWORD '{}';", self.password);
        self.single_user(cluster, &statement, "setting the password")
    }

    /// Statements without a server and without a client. One line is one statement.
    fn single_user(&self, cluster: &Path, statement: &str, step: &'static str) -> Result<(), StartError> {
        let mut postgres = self.command("postgres", cluster);
        // Without `exit_on_error` a refused statement would go unnoticed.
        postgres.args(["--single", "-F", "-c", "exit_on_error=true", "-D"]).arg(cluster).arg("postgres");
        self.run(postgres, &format!("{statement}\n"), step)
    }

    fn command(&self, name: &str, folder: &Path) -> Command {
        let mut command = Command::new(self.chosen.path.join(name));
        command.current_dir(folder);
        command
    }

    fn run(&self, mut command: Command, input: &str, step: &'static str) -> Result<(), StartError> {
        let log_from = logs::length(self.log);
        let failed = |reason: String| StartError::server(Child::Postgres, step, reason, self.log, log_from);
        as_server(&mut command, self.log, self.directory.run_as())?;
        command.stdin(Stdio::piped());
        let mut child = spawn(command, Signal::SIGKILL).map_err(|error| failed(error.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A child that has ended already says why in its status.
            let _ = stdin.write_all(input.as_bytes());
        }
        match wait::end_of(&mut child, INIT_TIMEOUT) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(failed(format!("it ended with {status}"))),
            Ok(None) => Err(failed(format!("it did not finish within {} s", INIT_TIMEOUT.as_secs()))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

impl Server for PostgresServer {
    fn which(&self) -> Child {
        Child::Postgres
    }

    fn command(&self) -> Result<Command, StartError> {
        self.chosen.verify()?;
        // After a crash of the main process the others notice within a moment, unless they are busy; until the last
        // of them is gone a new one refuses to start.
        leftovers::kill_all(&self.cluster, None);
        for pid_file in [self.cluster.join("postmaster.pid"), self.socket_dir.join(format!("{SOCKET}.lock"))] {
            leftovers::remove_stale_pid_file(&self.cluster, &pid_file);
        }
        let mut command = Command::new(self.chosen.path.join("postgres"));
        command.arg("-D").arg(&self.cluster).arg("-k").arg(&self.socket_dir).current_dir(&self.cluster);
        let mut settings = vec![
            "listen_addresses=",
            "port=5432",
            "unix_socket_permissions=0700",
            "max_connections=200",
            "shared_buffers=128MB",
            // Our queries are short: compiling them costs more than it saves.
            "jit=off",
            "timezone=UTC",
            "log_timezone=UTC",
            "log_destination=stderr",
            "logging_collector=off",
            "cluster_name=airstream",
        ];
        if !self.fsync {
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"]);
        }
        for setting in settings {
            command.args(["-c", setting]);
        }
        as_server(&mut command, &self.log, self.run_as.as_ref())?;
        Ok(command)
    }

    fn probe(&self, _pid: u32) -> Result<(), String> {
        let mut stream = UnixStream::connect(self.socket_dir.join(SOCKET)).map_err(|error| error.to_string())?;
        answer_to_startup(&mut stream)
    }

    fn stop_signal(&self) -> Signal {
        // "Fast": open transactions are rolled back, and a checkpoint is written.
        Signal::SIGINT
    }

    fn log(&self) -> &Path {
        &self.log
    }

    fn remember(&self, pid: Option<u32>) {
        let process = pid.map(|pid| Process::of(pid, &self.chosen.path.join("postgres")));
        if let Err(error) = self.state.update(|state| state.postgres.process = process) {
            tracing::warn!(%error, "could not write down the process of PostgreSQL");
        }
    }
}

/// The start of a session, up to the server's request for a password: then it takes connections.
fn answer_to_startup(stream: &mut UnixStream) -> Result<(), String> {
    let mut message = Vec::new();
    message.extend(196_608_u32.to_be_bytes());
    message.extend(format!("user\0{USER}\0database\0{DATABASE}\0\0").into_bytes());
    let length = (message.len() + 4) as u32;
    let mut exchange = || -> std::io::Result<(u8, Vec<u8>)> {
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(&message)?;
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let mut body = Vec::new();
        stream.take(u64::from(u32::from_be_bytes(length).saturating_sub(4)).min(16_384)).read_to_end(&mut body)?;
        Ok((kind, body))
    };
    match exchange().map_err(|error| error.to_string())? {
        (b'R', _) => Ok(()),
        (_, body) => {
            let field = |code: char| {
                let text = String::from_utf8_lossy(&body).into_owned();
                text.split('\0').find_map(|field| field.strip_prefix(code)).unwrap_or_default().to_owned()
            };
            // Too many clients: it serves, only not us.
            if field('C') == "53300" { Ok(()) } else { Err(field('M')) }
        }
    }
}

/// Ends what a killed parent has left.
pub(crate) fn stop_leftovers(directory: &Directory, state: &StateFile) -> usize {
    leftovers::stop(&directory.postgres(), state.get().postgres.process.as_ref(), Signal::SIGINT)
}

/// How many databases a cluster has, without asking a server.
pub(crate) fn databases(cluster: &Path) -> usize {
    fs::read_dir(cluster.join("base")).map(|entries| entries.count()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_space_fits_into_a_url() {
        let url = socket_url(Path::new("/tmp/a b&c/s"), "u", "p", "d");
        assert_eq!(url, "postgres:///d?host=/tmp/a%20b%26c/s&user=u&password=p");
    }
}
