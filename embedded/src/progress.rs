//! What the caller hears while a stack starts.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Child {
    /// `nats-server`, which keeps the log.
    Nats,
    /// One `nats-server` of a cluster, numbered from 1.
    NatsPeer(u8),
    /// PostgreSQL, which keeps the projections.
    Postgres,
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Child::Nats => f.write_str("nats-server"),
            Child::NatsPeer(number) => write!(f, "nats-{number}"),
            Child::Postgres => f.write_str("PostgreSQL"),
        }
    }
}

/// Where a server comes from, in the order in which the places are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A URL was given; the server is somebody else's.
    External,
    /// A path was given.
    Explicit,
    /// Fetched earlier, and verified again just now.
    Cache,
    /// Installed on this machine.
    System,
    /// Fetched and verified just now.
    Fetched,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::External => "given by URL",
            Source::Explicit => "given by path",
            Source::Cache => "from the cache",
            Source::System => "installed on this machine",
            Source::Fetched => "fetched and verified",
        })
    }
}

/// A step of the start. The callback runs on the threads that do the work, so it should not block.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Progress {
    /// It is decided which server runs.
    Chose {
        /// The server.
        what: Child,
        /// Its version; `None` for an external one.
        version: Option<String>,
        /// `nats-server` itself, or the folder with `postgres`; `None` for an external one.
        path: Option<PathBuf>,
        /// Why this one.
        source: Source,
    },
    /// A package client is downloading a server.
    Fetching {
        /// The server.
        what: Child,
        /// The package, as its client names it.
        package: String,
    },
    /// The database cluster is being created.
    Initialising {
        /// The server.
        what: Child,
    },
    /// The process is being started.
    Starting {
        /// The server.
        what: Child,
    },
    /// The server answers.
    Ready {
        /// The server.
        what: Child,
        /// Host and port, or the socket folder; without credentials.
        address: String,
        /// From the start of the process to its first answer.
        took: Duration,
    },
    /// Something the user should know, in one sentence.
    Notice {
        /// The server it is about.
        what: Child,
        /// The sentence.
        text: String,
    },
}

/// The callback, shared by the threads that start the servers.
pub(crate) type Report = std::sync::Arc<dyn Fn(&Progress) + Send + Sync>;

/// Tells the caller, and the log for those who read that.
pub(crate) fn notice(report: &Report, what: Child, text: String) {
    tracing::warn!(server = %what, "{text}");
    report(&Progress::Notice { what, text });
}
