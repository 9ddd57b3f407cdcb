//! A server that is alive and will not work again before it is restarted.
//!
//! nats-server does not write on to a file that could not be written: a stream whose disk was full stays dead when the disk
//! has room again. It says so in its health, and a restart mends it.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::Inner;

/// How often to look, and how long to leave a server alone that was restarted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Seen twice in a row, this far apart, it is no passing trouble.
    pub(super) look: Duration,
    /// Longer than the window in which a few restarts are a pattern: this one is ours, not the server's.
    pub(super) rest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { look: Duration::from_secs(5), rest: Duration::from_secs(90) }
    }
}

/// Looks until the supervisor stops. The thread that waits for the process starts it again.
pub(super) fn watch(inner: &Arc<Inner>, pace: Pace) -> std::io::Result<()> {
    let inner = Arc::clone(inner);
    let name = format!("embedded-{}-health", inner.server.which());
    let looking = move || {
        let mut seen = false;
        while !inner.is_over() {
            inner.pause(pace.look);
            let stalled = if inner.is_over() { None } else { inner.server.stalled() };
            match stalled {
                Some(reason) if seen => {
                    let server = inner.server.which();
                    tracing::warn!(%server, reason, "a server does not get over what has passed, and is restarted");
                    inner.signal(inner.server.stop_signal());
                    seen = false;
                    inner.pause(pace.rest);
                }
                other => seen = other.is_some(),
            }
        }
    };
    thread::Builder::new().name(name).spawn(looking).map(drop)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use nix::sys::signal::Signal;
    use tokio::sync::watch::Sender;

    use super::super::{Server, Supervisor};
    use super::*;
    use crate::error::StartError;
    use crate::options::Options;
    use crate::progress::Child;

    /// Its first process is stalled, from the third look on.
    struct Stalls {
        looks: AtomicU32,
        starts: Arc<AtomicU32>,
    }

    impl Server for Stalls {
        fn which(&self) -> Child {
            Child::Nats
        }
        fn command(&self) -> Result<Command, StartError> {
            self.starts.fetch_add(1, Ordering::SeqCst);
            let mut command = Command::new("sleep");
            command.arg("600");
            Ok(command)
        }
        fn probe(&self, _: u32) -> Result<(), String> {
            Ok(())
        }
        fn stalled(&self) -> Option<String> {
            let looks = self.looks.fetch_add(1, Ordering::SeqCst);
            (looks >= 2 && self.starts.load(Ordering::SeqCst) == 1).then(|| "no space was left".to_owned())
        }
        fn stop_signal(&self) -> Signal {
            Signal::SIGTERM
        }
        fn log(&self) -> &Path {
            Path::new("/dev/null")
        }
        fn remember(&self, _: Option<u32>) {}
    }

    #[test]
    fn a_stalled_server_is_restarted_once() {
        let starts = Arc::new(AtomicU32::new(0));
        let server = Stalls { looks: AtomicU32::new(0), starts: Arc::clone(&starts) };
        let pace = Pace { look: Duration::from_millis(5), rest: Duration::from_millis(5) };
        let failures = Arc::new(Sender::new(None));
        let options = Options { start_timeout: Duration::from_secs(5), ..Options::default() };
        let supervisor = Supervisor::start_at(Box::new(server), &options, failures, pace).unwrap();
        let first = supervisor.pid();
        let until = Instant::now() + Duration::from_secs(20);
        while supervisor.restarts() == 0 || supervisor.pid().is_none() {
            assert!(Instant::now() < until, "it was not restarted");
            thread::yield_now();
        }
        assert_ne!(supervisor.pid(), first);
        assert!(!supervisor.stop().killed);
        assert_eq!((starts.load(Ordering::SeqCst), supervisor.restarts()), (2, 1));
    }
}
