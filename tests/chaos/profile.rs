//! How much of everything, and which seed.

use std::time::Duration;

use crate::dice::Dice;

/// What a run is made of. Counts never depend on the machine; only how long they take does.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    /// Commands of the plan. Reports of workers and the platform's own commands come on top.
    pub(crate) commands: u64,
    /// Times at which something is killed with -9, be it one process or all.
    pub(crate) kills: u64,
    /// Times at which something is stopped and continued.
    pub(crate) pauses: u64,
    /// Times at which something is asked to end and started again.
    pub(crate) restarts: u64,
    /// Callers at once.
    pub(crate) clients: u64,
    pub(crate) workers: u64,
    /// The longest pause; longer than the time after which another process may take over what a paused one owns.
    pub(crate) longest_pause: Duration,
    /// How long everything may take to come to rest once nothing is broken any more.
    pub(crate) rest_within: Duration,
}

impl Profile {
    /// From the environment: `AIRSTREAM_CHAOS` (`short`, `long`, or `brief` to try the driver itself),
    /// `AIRSTREAM_CHAOS_SEED`, `AIRSTREAM_CHAOS_LONGEST_PAUSE_MS`.
    pub(crate) fn from_environment() -> Self {
        let word = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let number =
            |name: &str| word(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: a number")));
        let seed = number("AIRSTREAM_CHAOS_SEED").unwrap_or_else(|| {
            let fresh = runtime::clock::now().timestamp_micros();
            // Short enough to be typed.
            Dice::new(fresh.unsigned_abs(), "seed", 0).between(1, 1_000_000_000)
        });
        let longest_pause = Duration::from_millis(number("AIRSTREAM_CHAOS_LONGEST_PAUSE_MS").unwrap_or(8_000));
        let base = Self {
            name: "short",
            seed,
            commands: 10_000,
            kills: 32,
            pauses: 12,
            restarts: 6,
            clients: 64,
            workers: 8,
            longest_pause,
            rest_within: Duration::from_secs(180),
        };
        match word("AIRSTREAM_CHAOS").as_deref() {
            None | Some("short") => base,
            Some("long") => Self {
                name: "long",
                commands: 200_000,
                kills: 600,
                pauses: 200,
                restarts: 100,
                rest_within: Duration::from_secs(900),
                ..base
            },
            Some("brief") => Self { name: "brief", commands: 1_000, kills: 5, pauses: 2, restarts: 2, ..base },
            Some(other) => panic!("AIRSTREAM_CHAOS={other}: say short, long or brief"),
        }
    }

    /// The line that does it again.
    pub(crate) fn replay(&self) -> String {
        format!(
            "AIRSTREAM_CHAOS={} AIRSTREAM_CHAOS_SEED={} AIRSTREAM_CHAOS_LONGEST_PAUSE_MS={} \
             cargo test -p airstream --test chaos -- --nocapture",
            self.name,
            self.seed,
            self.longest_pause.as_millis()
        )
    }
}
