//! Waiting for a state, with a deadline, on a thread of ours.

use std::io;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How often to look. A server takes tens of milliseconds to start or to end.
const STEP: Duration = Duration::from_millis(3);

/// Looks until there is something to see; `None` when patience has run out.
// Nothing tells a thread that a process which is not its child has ended, so it has to look.
#[allow(clippy::disallowed_methods)]
pub(crate) fn until<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(STEP);
    }
}

/// Waits for the end of a child that leads its own process group; kills the group when patience has run out.
pub(crate) fn end_of(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    match until(patience, || child.try_wait().transpose()) {
        Some(status) => status.map(Some),
        None => {
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            child.wait()?;
            Ok(None)
        }
    }
}
