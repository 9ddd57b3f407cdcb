//! Keeping one server alive, and ending it.
//!
//! A thread per server waits for the process to end. If nobody asked for that, it starts the server again, at most
//! [`crate::Options::restarts_per_minute`] times; then it gives up and says so through [`crate::Stack::failed`]. One of a
//! cluster is not given up: the others go on without it.

mod stalled;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child as ChildProcess, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use crate::error::StartError;
use crate::logs;
use crate::options::Options;
use crate::progress::Child;
use crate::spawn::spawn;
use stalled::Pace;

const RESTART_WINDOW: Duration = Duration::from_secs(60);
/// The wait before the first and the second restart within the window.
const BACKOFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];
/// The wait before each further one.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// The wait before further ones, for a server that the stack can do without.
const LONG_BACKOFF: Duration = Duration::from_secs(5);
/// How long a server may take to end when asked, before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A server as its supervisor sees it.
pub(crate) trait Server: Send + Sync + 'static {
    fn which(&self) -> Child;
    /// Whatever is to be cleaned up before this start, and the command.
    fn command(&self) -> Result<Command, StartError>;
    /// Asks the started process whether it is ready. `Err` is a reason to wait, for people.
    fn probe(&self, pid: u32) -> Result<(), String>;
    /// Why it will not work again before it is restarted, although it is alive and a restart would help now.
    fn stalled(&self) -> Option<String> {
        None
    }
    /// The signal that makes it end in order.
    fn stop_signal(&self) -> Signal;
    fn log(&self) -> &Path;
    /// Whether the stack goes on without it: then it is started again for as long as it takes.
    fn may_stay_away(&self) -> bool {
        false
    }
    /// Writes down which process it is now.
    fn remember(&self, pid: Option<u32>);
}

/// A server died and could not be brought back.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{child} died and could not be restarted: {reason}; its log is {log}", log = log.display())]
pub struct ChildFailure {
    /// Which one.
    pub child: Child,
    /// Why, in one sentence.
    pub reason: String,
    /// Its log.
    pub log: PathBuf,
    /// The last lines of the log, at most 20.
    pub last_lines: Vec<String>,
}

/// How a stack ended.
#[derive(Debug, Clone, Default)]
pub struct StopReport {
    /// One entry per server that was ours.
    pub children: Vec<ChildStop>,
}

impl StopReport {
    /// Every server ended by itself when asked.
    pub fn was_graceful(&self) -> bool {
        self.children.iter().all(|stop| !stop.killed)
    }
}

/// How one server ended.
#[derive(Debug, Clone)]
pub struct ChildStop {
    /// Which one.
    pub child: Child,
    /// From the signal to the end.
    pub took: Duration,
    /// It did not end when asked and had to be killed.
    pub killed: bool,
}

impl fmt::Display for ChildStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.killed { "killed" } else { "stopped" };
        write!(f, "{} {how} after {} ms", self.child, self.took.as_millis())
    }
}

pub(crate) type Failures = Arc<watch::Sender<Option<ChildFailure>>>;

/// A running server with the thread that watches it. Dropping it ends the server.
pub(crate) struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    server: Box<dyn Server>,
    start_timeout: Duration,
    restarts_per_minute: usize,
    state: Mutex<Running>,
    changed: Condvar,
    restarts: AtomicU32,
    failures: Failures,
}

/// `pid` is set exactly as long as the process has not been reaped: a signal sent under the lock reaches it and
/// nobody who has got its number since.
struct Running {
    pid: Option<Pid>,
    stopping: bool,
    /// The thread is done.
    ended: bool,
}

impl Supervisor {
    /// Starts the server, waits until it answers, and goes on watching it.
    pub(crate) fn start(
        server: Box<dyn Server>,
        options: &Options,
        failures: Failures,
    ) -> Result<Supervisor, StartError> {
        Self::start_at(server, options, failures, Pace::default())
    }

    fn start_at(
        server: Box<dyn Server>,
        options: &Options,
        failures: Failures,
        pace: Pace,
    ) -> Result<Supervisor, StartError> {
        let inner = Arc::new(Inner {
            server,
            start_timeout: options.start_timeout,
            restarts_per_minute: options.restarts_per_minute,
            state: Mutex::new(Running { pid: None, stopping: false, ended: false }),
            changed: Condvar::new(),
            restarts: AtomicU32::new(0),
            failures,
        });
        let child = inner.launch()?;
        let watching = inner.clone();
        let name = format!("embedded-{}", inner.server.which());
        let started = thread::Builder::new().name(name).spawn(move || watching.watch(child));
        let started = started.and_then(|_| stalled::watch(&inner, pace));
        match started {
            Ok(()) => Ok(Supervisor { inner }),
            Err(source) => {
                inner.state().stopping = true;
                inner.signal(Signal::SIGKILL);
                Err(StartError::Io { doing: "start a thread".to_owned(), source })
            }
        }
    }

    /// Sends a signal; false if there is no process at the moment.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.inner.signal(signal)
    }

    pub(crate) fn which(&self) -> Child {
        self.inner.server.which()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.inner.state().pid.map(|pid| pid.as_raw() as u32)
    }

    pub(crate) fn restarts(&self) -> u32 {
        self.inner.restarts.load(Ordering::Acquire)
    }

    /// Asks the server to end, kills it when patience has run out, and returns when it is gone.
    pub(crate) fn stop(&self) -> ChildStop {
        let inner = &self.inner;
        let asked = Instant::now();
        {
            let mut state = inner.state();
            state.stopping = true;
            inner.changed.notify_all();
        }
        inner.signal(inner.server.stop_signal());
        // A process that somebody has paused does not notice any signal but these two.
        inner.signal(Signal::SIGCONT);
        let mut killed = false;
        if !inner.wait_until_ended(STOP_PATIENCE) {
            killed = inner.signal(Signal::SIGKILL);
            inner.wait_until_ended(STOP_PATIENCE);
        }
        ChildStop { child: inner.server.which(), took: asked.elapsed(), killed }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if !self.inner.state().ended {
            self.stop();
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, Running> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) -> bool {
        let state = self.state();
        state.pid.is_some_and(|pid| kill(pid, signal).is_ok())
    }

    fn is_over(&self) -> bool {
        let state = self.state();
        state.stopping || state.ended
    }

    /// Waits for `patience` or until `stop` is called.
    fn pause(&self, patience: Duration) {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, patience, |state| !state.stopping);
        drop(waited);
    }

    fn wait_until_ended(&self, patience: Duration) -> bool {
        let state = self.state();
        match self.changed.wait_timeout_while(state, patience, |state| !state.ended) {
            Ok((state, _)) => state.ended,
            Err(_) => false,
        }
    }

    /// One start: from the command to the first answer.
    fn launch(&self) -> Result<ChildProcess, StartError> {
        let server = &self.server;
        let log_from = logs::length(server.log());
        let command = server.command()?;
        let mut child = spawn(command, server.stop_signal())
            .map_err(|source| StartError::Io { doing: format!("start {}", server.which()), source })?;
        let pid = child.id();
        self.state().pid = Some(Pid::from_raw(pid as i32));
        server.remember(Some(pid));
        match self.wait_until_ready(&mut child) {
            Ok(()) => Ok(child),
            Err(reason) => {
                let _ = child.kill();
                self.state().pid = None;
                let _ = child.wait();
                server.remember(None);
                Err(StartError::server(server.which(), "starting", reason, server.log(), log_from))
            }
        }
    }

    fn wait_until_ready(&self, child: &mut ChildProcess) -> Result<(), String> {
        let started = Instant::now();
        loop {
            {
                // Under the lock, because it may free the process number.
                let mut state = self.state();
                match child.try_wait() {
                    Ok(None) => {}
                    Ok(Some(status)) => {
                        state.pid = None;
                        return Err(format!("it ended with {status}"));
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
            let reason = match self.server.probe(child.id()) {
                Ok(()) => return Ok(()),
                Err(reason) => reason,
            };
            if self.state().stopping {
                return Err("it was stopped before it was ready".to_owned());
            }
            if started.elapsed() > self.start_timeout {
                return Err(format!("it did not answer within {} s ({reason})", self.start_timeout.as_secs()));
            }
            self.pause(Duration::from_millis(3));
        }
    }

    fn watch(&self, mut child: ChildProcess) {
        let which = self.server.which();
        let mut recent: VecDeque<Instant> = VecDeque::new();
        loop {
            let status = self.wait(&mut child);
            if self.state().stopping {
                break;
            }
            tracing::warn!(server = %which, %status, "a server died and is started again");
            match self.restart(&mut recent, &status) {
                Ok(Some(again)) => child = again,
                Ok(None) => break,
                Err(failure) => {
                    tracing::error!(server = %which, reason = %failure.reason, "a server could not be restarted");
                    self.failures.send_replace(Some(failure));
                    break;
                }
            }
        }
        self.server.remember(None);
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// `None` means: we are stopping.
    fn restart(&self, recent: &mut VecDeque<Instant>, status: &str) -> Result<Option<ChildProcess>, ChildFailure> {
        let which = self.server.which();
        let log_from = logs::length(self.server.log());
        let mut reason =
            format!("it died {} times within a minute, last with {status}", self.restarts_per_minute.saturating_add(1));
        loop {
            recent.retain(|at| at.elapsed() < RESTART_WINDOW);
            let given_up = recent.len() >= self.restarts_per_minute;
            if given_up && !self.server.may_stay_away() {
                return Err(ChildFailure {
                    child: which,
                    reason,
                    log: self.server.log().to_owned(),
                    last_lines: logs::last_lines(self.server.log(), log_from),
                });
            }
            if given_up {
                tracing::error!(server = %which, reason, "a server does not stay up; the others go on, it is tried again");
            }
            let usual = BACKOFF.get(recent.len()).copied().unwrap_or(LONGEST_BACKOFF);
            let backoff = if given_up { LONG_BACKOFF } else { usual };
            recent.push_back(Instant::now());
            self.pause(backoff);
            if self.state().stopping {
                return Ok(None);
            }
            match self.launch() {
                Ok(child) => {
                    let restarts = self.restarts.fetch_add(1, Ordering::AcqRel) + 1;
                    tracing::warn!(server = %which, restarts, "a server is back");
                    return Ok(Some(child));
                }
                Err(_) if self.state().stopping => return Ok(None),
                Err(error) => {
                    tracing::warn!(server = %which, %error, "a restart failed");
                    reason = match error {
                        StartError::ServerFailed { reason, .. } => reason,
                        other => other.to_string(),
                    };
                }
            }
        }
    }

    /// Waits for the end of the process, forgets its number, and only then lets the operating system reuse it.
    fn wait(&self, child: &mut ChildProcess) -> String {
        #[cfg(target_os = "linux")]
        {
            use nix::errno::Errno;
            use nix::sys::wait::{Id, WaitPidFlag, waitid};
            let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            while waitid(Id::Pid(Pid::from_raw(child.id() as i32)), ended) == Err(Errno::EINTR) {}
            self.state().pid = None;
        }
        let status = child.wait();
        self.state().pid = None;
        status.map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}
