//! All servers together.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::Signal;
use tokio::sync::{oneshot, watch};

use crate::directory::Directory;
use crate::error::StartError;
use crate::find;
use crate::nats::{self, Account, Nats, NatsAddress};
use crate::options::Options;
use crate::postgres::{self, Postgres, PostgresAddress};
use crate::progress::{Child, Progress, Report, notice};
use crate::secrets::{Secrets, random_hex};
use crate::state::{Process, StateFile};
use crate::supervise::{ChildFailure, Failures, StopReport, Supervisor};
use crate::users;

/// Finds, starts and watches the servers; returns when all answer.
///
/// `on_progress` hears every step, from threads of this crate. Dropping the future before it is ready ends what was started.
pub async fn start(
    options: Options,
    on_progress: impl Fn(&Progress) + Send + Sync + 'static,
) -> Result<Stack, StartError> {
    let report: Report = Arc::new(on_progress);
    on_own_thread(move || {
        let run_as = users::run_as()?;
        let directory =
            if options.ephemeral { Directory::temporary(run_as)? } else { Directory::open(&options.data_dir, run_as)? };
        start_in(directory, &options, &report)
    })
    .await?
}

/// Runs something that blocks on a thread of its own, so that it does not depend on the caller's runtime.
pub(crate) async fn on_own_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    let failed = |source| StartError::Io { doing: "run a thread of our own".to_owned(), source };
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new().name("embedded".to_owned()).spawn(move || drop(sender.send(work()))).map_err(failed)?;
    receiver.await.map_err(|_| failed(std::io::Error::other("it panicked")))
}

/// Starts the servers in a folder we hold.
pub(crate) fn start_in(directory: Directory, options: &Options, report: &Report) -> Result<Stack, StartError> {
    let state = Arc::new(StateFile::load(&directory.state()));
    if state.get().instance.is_empty() {
        let made = random_hex(8).map_err(|error| StartError::io("read", Path::new("/dev/urandom"), error))?;
        state.update(|state| state.instance = made)?;
    }
    let exe = std::env::current_exe().unwrap_or_default();
    state.update(|state| state.holder = Some(Process::of(std::process::id(), &exe)))?;
    stop_leftovers(&directory, &state, report)?;
    let secrets = Mutex::new(Secrets::load(&directory.secrets())?);
    let failures: Failures = Arc::new(watch::channel(None).0);

    let start_nats = || -> Result<(Option<Nats>, NatsAddress), StartError> {
        match find::choose(Child::Nats, options, directory.run_as(), report)? {
            Err(url) => Ok((None, NatsAddress::external(url))),
            Ok(chosen) => {
                let nats = nats::start(options, chosen, &directory, &state, &secrets, &failures, report)?;
                let address = nats.address.clone();
                Ok((Some(nats), address))
            }
        }
    };
    let start_postgres = || -> Result<(Option<Postgres>, PostgresAddress), StartError> {
        match find::choose(Child::Postgres, options, directory.run_as(), report)? {
            Err(url) => Ok((None, PostgresAddress::external(url))),
            Ok(chosen) => {
                let postgres = postgres::start(options, chosen, &directory, &state, &secrets, &failures, report)?;
                let address = postgres.address.clone();
                Ok((Some(postgres), address))
            }
        }
    };
    let (nats, postgres) = thread::scope(|scope| {
        let nats = scope.spawn(start_nats);
        let postgres = start_postgres();
        (nats.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), postgres)
    });
    // The passwords are worth keeping even if a server failed: the other one may know them already.
    let saved = secrets.lock().unwrap_or_else(std::sync::PoisonError::into_inner).save();
    let (nats, nats_address) = nats?;
    let (postgres, postgres_address) = postgres?;
    saved?;
    let (nats, test_accounts) = nats.map(|nats| (nats.supervisors, nats.test_accounts)).unzip();
    Ok(Stack {
        nats: nats.unwrap_or_default(),
        postgres: postgres.map(|postgres| postgres.supervisor),
        nats_address,
        postgres_address,
        test_accounts: test_accounts.unwrap_or_default(),
        failures,
        directory,
    })
}

fn stop_leftovers(directory: &Directory, state: &StateFile, report: &Report) -> Result<(), StartError> {
    let stopped = [
        (Child::Nats, nats::stop_leftovers(directory, state)),
        (Child::Postgres, postgres::stop_leftovers(directory, state)),
    ];
    for (what, count) in stopped {
        if count > 0 {
            notice(report, what, format!("{what} of a process that was killed was still there and has been stopped"));
        }
    }
    state.update(|state| {
        state.nats.process = None;
        state.nats.peers.iter_mut().for_each(|peer| peer.process = None);
        state.postgres.process = None;
    })
}

/// The running servers. Dropping it ends them and waits for that; [`Stack::stop`] does the same without blocking.
pub struct Stack {
    // Dropped in this order: first the servers, then the folder with its lock.
    nats: Vec<Supervisor>,
    postgres: Option<Supervisor>,
    nats_address: NatsAddress,
    postgres_address: PostgresAddress,
    test_accounts: Vec<Account>,
    failures: Failures,
    directory: Directory,
}

impl Stack {
    /// How to connect to NATS. Does not change while the stack runs.
    pub fn nats(&self) -> &NatsAddress {
        &self.nats_address
    }

    /// How to connect to PostgreSQL. Does not change while the stack runs.
    pub fn postgres(&self) -> &PostgresAddress {
        &self.postgres_address
    }

    /// The folder of this stack; a temporary one if it is ephemeral.
    pub fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    /// The folder with `nats.log` (of a cluster `nats-1.log` and so on) and `postgres.log`.
    pub fn log_dir(&self) -> PathBuf {
        self.directory.log()
    }

    /// Resolves when a server died and could not be brought back. Servers given by URL are not watched.
    pub async fn failed(&self) -> ChildFailure {
        let mut failures = self.failures.subscribe();
        match failures.wait_for(Option::is_some).await {
            Ok(failure) => {
                if let Some(failure) = failure.clone() {
                    return failure;
                }
            }
            Err(_closed) => {}
        }
        // The sender lives in `self`, so neither happens.
        std::future::pending().await
    }

    /// Sends a signal to a server, for tests of what happens then. False if it is not ours or is not running just now.
    pub async fn kill_child(&self, which: Child, signal: Signal) -> bool {
        self.supervisor(which).is_some_and(|supervisor| supervisor.signal(signal))
    }

    /// The process number of a server; `None` if it is not ours or is not running just now.
    pub fn child_pid(&self, which: Child) -> Option<u32> {
        self.supervisor(which)?.pid()
    }

    /// How often a server has been brought back since the start. It counts when the server answers again.
    pub fn restarts(&self, which: Child) -> u32 {
        self.supervisor(which).map_or(0, Supervisor::restarts)
    }

    /// Ends the servers in order: each is asked, given ten seconds, then killed. An ephemeral folder is removed.
    pub async fn stop(self) -> StopReport {
        let stopped = on_own_thread(move || self.stop_blocking()).await;
        stopped.unwrap_or_default()
    }

    /// As [`Stack::stop`], and has the disk keep what NATS has stored. For a stack that was filled without
    /// [`Options::nats_sync_always`]: one wait at the end instead of one per message.
    pub async fn stop_and_sync(self) -> Result<StopReport, StartError> {
        on_own_thread(move || {
            let report = self.stop_children();
            sync_all_below(&self.directory.nats())?;
            Ok(report)
        })
        .await?
    }

    fn stop_blocking(self) -> StopReport {
        self.stop_children()
    }

    fn stop_children(&self) -> StopReport {
        let children = thread::scope(|scope| {
            let ours = self.nats.iter().chain(&self.postgres);
            let stopping: Vec<_> = ours.map(|supervisor| scope.spawn(|| supervisor.stop())).collect();
            stopping.into_iter().filter_map(|stopping| stopping.join().ok()).collect()
        });
        StopReport { children }
    }

    fn supervisor(&self, which: Child) -> Option<&Supervisor> {
        self.nats.iter().chain(&self.postgres).find(|supervisor| supervisor.which() == which)
    }

    pub(crate) fn test_accounts(&self) -> &[Account] {
        &self.test_accounts
    }
}

/// Files first, then the folder that names them.
fn sync_all_below(folder: &Path) -> Result<(), StartError> {
    let failed = |error| StartError::io("sync", folder, error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            sync_all_below(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path()).and_then(|file| file.sync_all()).map_err(failed)?;
        }
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}
