//! One `airstream serve` under supervision, as an orchestrator would have it: whatever ends is started again.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use embedded::Signal;
use nix::unistd::Pid;

/// The pause before it is started again.
const PAUSE: Duration = Duration::from_millis(100);

/// A process that is brought back until this is dropped.
pub(crate) struct Airstream {
    pub(crate) url: String,
    pub(crate) log: PathBuf,
    watched: Arc<Watched>,
    watcher: Option<JoinHandle<()>>,
}

struct Watched {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Set exactly as long as the process has not been reaped: a signal reaches it, and nobody who has got its number since.
    pid: Option<Pid>,
    stopping: bool,
    /// Whether the next end is our doing.
    expected: bool,
    /// Ends that were nobody's doing.
    ends: Vec<String>,
}

impl Airstream {
    /// Starts it. Its log is appended to `<folder>/airstream-<number>.log`.
    pub(crate) fn start(folder: &Path, number: usize, environment: &[(&'static str, String)]) -> Self {
        // The port is its own for the whole run: callers find it again where it was.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = folder.join(format!("airstream-{number}.log"));
        let mut environment = environment.to_vec();
        environment.push(("AIRSTREAM__HTTP__BIND", format!("127.0.0.1:{port}")));
        let watched = Arc::new(Watched { state: Mutex::default(), changed: Condvar::new() });
        let (watching, folder, file) = (Arc::clone(&watched), folder.to_owned(), log.clone());
        let watcher = std::thread::spawn(move || {
            while !watching.state.lock().unwrap().stopping {
                let output = || Stdio::from(OpenOptions::new().create(true).append(true).open(&file).unwrap());
                let mut command = Command::new(env!("CARGO_BIN_EXE_airstream"));
                command.arg("serve").envs(environment.iter().cloned()).current_dir(&folder);
                command.stdin(Stdio::null()).stdout(output()).stderr(output());
                watching.watch(embedded::spawn(command, Signal::SIGKILL).unwrap());
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), log, watched, watcher: Some(watcher) }
    }

    /// Sends a signal; false when there is no process at the moment.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let mut state = self.watched.state.lock().unwrap();
        let Some(pid) = state.pid else { return false };
        state.expected |= matches!(signal, Signal::SIGKILL | Signal::SIGTERM);
        nix::sys::signal::kill(pid, signal).is_ok()
    }

    pub(crate) fn pid(&self) -> Option<i32> {
        self.watched.state.lock().unwrap().pid.map(Pid::as_raw)
    }

    /// Ends that nobody asked for, oldest first.
    pub(crate) fn unexpected_ends(&self) -> Vec<String> {
        self.watched.state.lock().unwrap().ends.clone()
    }
}

impl Watched {
    fn watch(&self, mut child: std::process::Child) {
        let mut state = self.state.lock().unwrap();
        state.pid = Some(Pid::from_raw(child.id() as i32));
        state.expected = false;
        let status: ExitStatus = loop {
            // Under the lock, because it frees the process number.
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            state = self.changed.wait_timeout(state, Duration::from_millis(5)).unwrap().0;
            if state.stopping {
                let _ = child.kill();
            }
        };
        state.pid = None;
        if !state.expected && !state.stopping {
            state.ends.push(status.to_string());
        }
        drop(self.changed.wait_timeout_while(state, PAUSE, |state| !state.stopping));
    }
}

impl Drop for Airstream {
    fn drop(&mut self) {
        self.watched.state.lock().unwrap().stopping = true;
        self.watched.changed.notify_all();
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}
