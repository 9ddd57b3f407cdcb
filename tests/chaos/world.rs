//! The four processes: a nats-server, a PostgreSQL and two `airstream serve`, each addressed by its number only.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use embedded::{Child, Options, Signal, Stack};

use crate::airstream::Airstream;
use crate::plan::{Fault, Target};

pub(crate) const TOKEN: &str = "a-token-for-chaos";

/// How long a process may be away before a fault that wants to hit it gives up.
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// Everything that runs.
pub(crate) struct World {
    // Ended in this order.
    pub(crate) airstreams: [Airstream; 2],
    pub(crate) stack: Stack,
    folder: Option<tempfile::TempDir>,
}

impl World {
    /// Up and ready.
    pub(crate) async fn start(seed: u64) -> Arc<Self> {
        let folder = tempfile::Builder::new().prefix(&format!("airstream-chaos-{seed}-")).tempdir().unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // Durable as in production, except that dying often is no reason to give up.
        let options =
            Options { data_dir: folder.path().join("servers"), restarts_per_minute: usize::MAX, ..Options::default() };
        let stack = embedded::start(options, |_| {}).await.unwrap_or_else(|error| panic!("{error}"));
        let nats = stack.nats();
        let tenants = nats.tenants.as_ref().unwrap();
        let environment = [
            ("AIRSTREAM__NATS__URL", nats.url.clone()),
            ("AIRSTREAM__NATS__USER", nats.user.clone().unwrap()),
            ("AIRSTREAM__NATS__PASSWORD", nats.password.clone().unwrap()),
            ("AIRSTREAM__NATS__TENANTS_USER", tenants.user.clone()),
            ("AIRSTREAM__NATS__TENANTS_PASSWORD", tenants.password.clone()),
            ("AIRSTREAM__POSTGRES__URL", stack.postgres().url.clone()),
            ("AIRSTREAM__DEVELOPMENT__TOKEN", TOKEN.to_owned()),
            ("AIRSTREAM__IDENTITY__MASTER_KEY", "dGhlLW1hc3Rlci1rZXktb2YtdGhlLXRlc3RzLTMyLWI=".to_owned()),
            // Steps call a server of the test's.
            ("AIRSTREAM__WORKFLOWS__ALLOW_PRIVATE", "127.0.0.0/8".to_owned()),
            ("AIRSTREAM__LOG__FORMAT", "text".to_owned()),
        ];
        let airstreams = [0, 1].map(|number| Airstream::start(folder.path(), number, &environment));
        let world = Self { airstreams, stack, folder: Some(folder) };
        world.ready().await;
        Arc::new(world)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), tempfile::TempDir::path)
    }

    /// Keeps the logs, because somebody will want to read them.
    pub(crate) fn keep(&mut self) -> PathBuf {
        self.folder.take().map(tempfile::TempDir::keep).unwrap_or_default()
    }

    /// Both processes answer.
    pub(crate) async fn ready(&self) {
        let client = reqwest::Client::new();
        for airstream in &self.airstreams {
            until("both processes are ready", BACK_WITHIN, async || {
                let asked =
                    client.get(format!("{}/readyz", airstream.url)).timeout(Duration::from_secs(2)).send().await;
                asked.is_ok_and(|answer| answer.status().is_success())
            })
            .await;
        }
    }

    /// Does it. A pause ends by itself, later.
    pub(crate) async fn strike(self: &Arc<Self>, fault: &Fault) {
        match fault {
            Fault::Kill(targets) => self.hit(targets, Signal::SIGKILL).await,
            Fault::Restart(targets) => self.hit(targets, Signal::SIGTERM).await,
            Fault::KillBackend(number) => {
                let mut backends = Vec::new();
                until("PostgreSQL has processes", BACK_WITHIN, async || {
                    backends = self.backends();
                    !backends.is_empty()
                })
                .await;
                send(backends[number % backends.len()], Signal::SIGKILL);
            }
            Fault::Pause(targets, time) => {
                let mut paused = Vec::new();
                for target in targets {
                    paused.push(self.present(*target).await);
                    if *target == Target::Postgres {
                        paused.extend(self.backends());
                    }
                }
                for pid in &paused {
                    send(*pid, Signal::SIGSTOP);
                }
                let time = *time;
                // Whoever was killed meanwhile is not continued any more.
                let (world, targets) = (Arc::clone(self), targets.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    let alive =
                        targets.iter().any(|target| world.pid(*target).is_some_and(|pid| paused.contains(&pid)));
                    for pid in paused.into_iter().filter(|_| alive) {
                        send(pid, Signal::SIGCONT);
                    }
                });
            }
        }
    }

    async fn hit(&self, targets: &[Target], signal: Signal) {
        for target in targets {
            self.present(*target).await;
        }
        for target in targets {
            match target {
                Target::Airstream(number) => self.airstreams[*number].signal(signal),
                Target::Nats => self.stack.kill_child(Child::Nats, signal).await,
                // What SIGTERM asks of PostgreSQL, to wait until everybody has gone, never ends with a pool connected.
                Target::Postgres if signal == Signal::SIGTERM => {
                    self.stack.kill_child(Child::Postgres, Signal::SIGINT).await
                }
                Target::Postgres => self.stack.kill_child(Child::Postgres, signal).await,
            };
        }
    }

    fn pid(&self, target: Target) -> Option<i32> {
        match target {
            Target::Airstream(number) => self.airstreams[number].pid(),
            Target::Nats => self.stack.child_pid(Child::Nats).map(|pid| pid as i32),
            Target::Postgres => self.stack.child_pid(Child::Postgres).map(|pid| pid as i32),
        }
    }

    async fn present(&self, target: Target) -> i32 {
        until(&format!("{target} is back"), BACK_WITHIN, async || self.pid(target).is_some()).await;
        self.pid(target).unwrap_or_default()
    }

    /// PostgreSQL's processes besides the first one.
    fn backends(&self) -> Vec<i32> {
        let Some(first) = self.pid(Target::Postgres) else { return Vec::new() };
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Nothing is stopped any more and everything answers.
    pub(crate) async fn heal(&self) {
        for target in [Target::Airstream(0), Target::Airstream(1), Target::Nats, Target::Postgres] {
            send(self.present(target).await, Signal::SIGCONT);
        }
        for backend in self.backends() {
            send(backend, Signal::SIGCONT);
        }
        self.ready().await;
    }
}

fn send(pid: i32, signal: Signal) {
    // It may have gone meanwhile.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
}

/// Waits for a state, with a deadline; whether it came.
pub(crate) async fn comes(patience: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    while !holds().await {
        if Instant::now() > end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Waits for a state without which nothing goes on.
pub(crate) async fn until(what: &str, patience: Duration, holds: impl AsyncFnMut() -> bool) {
    assert!(comes(patience, holds).await, "not within {} s: {what}", patience.as_secs());
}
