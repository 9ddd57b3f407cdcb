//! What a caller can ask for, and where things go when nobody asks.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::StartError;
use crate::users;

/// How to start a stack. `Options::default()` with a `data_dir` is what `airstream up` uses.
/// `Debug` leaves the URLs out, because they may contain passwords.
#[derive(Clone)]
pub struct Options {
    /// The folder of this stack; `nats/` (or `nats-1/`, `nats-2/`, `nats-3/`), `pg/`, `s/` (socket), `log/`, `secrets.json`, `state.json` and `lock` live in it.
    /// Ignored when `ephemeral` is set.
    pub data_dir: PathBuf,
    /// Use a temporary folder that is removed at stop, and wait for the disk nowhere: what is thrown away at the end
    /// need not survive a power cut. Overrides `nats_sync_always` and `postgres_fsync`.
    pub ephemeral: bool,
    /// Use this NATS server instead of starting one. It is not supervised.
    pub nats_url: Option<String>,
    /// Use this PostgreSQL server instead of starting one. It is not supervised.
    pub postgres_url: Option<String>,
    /// Run exactly this `nats-server`.
    pub nats_binary: Option<PathBuf>,
    /// Run `postgres` and `initdb` from exactly this folder.
    pub postgres_bin_dir: Option<PathBuf>,
    /// Where fetched servers are kept, see [`default_cache_dir`].
    pub cache_dir: PathBuf,
    /// How many NATS servers: 1, or 3 for a cluster on this machine. `None`: as many as the folder was made with, 1 for a
    /// new one.
    pub nats_servers: Option<usize>,
    /// In a cluster: subjects such as `cmd.>` whose requests stay on the server that they came in on. There they go to
    /// `door.<server name>.<subject>`; otherwise any server's subscriber might get them, and lose them with its server.
    pub nats_doors: Vec<String>,
    /// Users besides the platform's own, which may do everything in their accounts, and `sys` (monitoring). Whoever is not
    /// among them is asked about: see [`crate::NatsTenants`].
    pub nats_users: Vec<NatsUser>,
    /// Extra accounts `T00`, `T01`, …, each with its own JetStream and its own copy of the users of the platform's account.
    /// Tests need them: stream names are fixed, so two tests on one server need two accounts. 0 means only `APP`.
    pub accounts: usize,
    /// Write `sync_interval: always`, so that an acknowledged event survives a power cut.
    /// Without it NATS waits up to two minutes before it asks the disk to keep what it has acknowledged.
    pub nats_sync_always: bool,
    /// `fsync` in PostgreSQL.
    pub postgres_fsync: bool,
    /// How long a server may take from its start to its first answer. Fetching has its own, longer limit.
    pub start_timeout: Duration,
    /// How often a server that died is started again within a minute before the stack gives up.
    /// Three deaths are bad luck, one more is a pattern; tests that kill servers on purpose allow more.
    pub restarts_per_minute: usize,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("data_dir", &self.data_dir)
            .field("ephemeral", &self.ephemeral)
            .field("nats_binary", &self.nats_binary)
            .field("postgres_bin_dir", &self.postgres_bin_dir)
            .field("cache_dir", &self.cache_dir)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    /// Durable, supervised, in [`default_data_dir`] (or `.airstream` here if there is no home to put it into).
    fn default() -> Self {
        Options {
            data_dir: default_data_dir().unwrap_or_else(|_| PathBuf::from(".airstream")),
            ephemeral: false,
            nats_url: None,
            postgres_url: None,
            nats_binary: None,
            postgres_bin_dir: None,
            cache_dir: default_cache_dir().unwrap_or_else(|_| PathBuf::from(".airstream/cache")),
            nats_servers: None,
            nats_doors: Vec::new(),
            nats_users: Vec::new(),
            accounts: 0,
            nats_sync_always: true,
            postgres_fsync: true,
            start_timeout: Duration::from_secs(30),
            restarts_per_minute: 3,
        }
    }
}

/// Which account a user is in. Accounts share no subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatsAccount {
    /// The platform's own, with the log.
    Platform,
    /// That of everybody who comes through a door.
    Tenants,
}

/// A NATS user that may do only what is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsUser {
    /// Where it is.
    pub account: NatsAccount,
    /// Letters, digits, `-` and `_`. In the test account `T07` the user is called `t07-<name>`.
    pub name: String,
    /// Subjects it may publish to; none means it may not publish.
    pub publish: Vec<String>,
    /// Subjects it may subscribe to; none means it may not subscribe.
    pub subscribe: Vec<String>,
}

/// `$XDG_STATE_HOME/airstream`, else `~/.local/state/airstream`; for root `/var/lib/airstream`,
/// because the servers run as another user, which cannot enter root's home.
pub fn default_data_dir() -> Result<PathBuf, StartError> {
    standard_dir("/var/lib", "XDG_STATE_HOME", ".local/state")
}

/// `$XDG_CACHE_HOME/airstream`, else `~/.cache/airstream`; for root `/var/cache/airstream`.
pub fn default_cache_dir() -> Result<PathBuf, StartError> {
    standard_dir("/var/cache", "XDG_CACHE_HOME", ".cache")
}

fn standard_dir(for_root: &str, variable: &str, below_home: &str) -> Result<PathBuf, StartError> {
    if users::is_root() {
        return Ok(Path::new(for_root).join("airstream"));
    }
    // The XDG specification: relative values are invalid and to be ignored.
    let from_variable = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = from_variable
        .or_else(|| std::env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(below_home)));
    base.map(|base| base.join("airstream")).ok_or(StartError::NoHome)
}
