//! A long, steady load on a stack as people start it, with everything that it runs: projections, reactor, timers, workers,
//! doors. Whatever creeps (memory, latency, lag) creeps here.
//!
//! `AIRSTREAM_SOAK_MINUTES=20` makes it the real thing; without, it runs for some seconds, so that it cannot rot, and
//! judges errors only. Samples and summary are in `target/soak/`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "tests report by panicking, a soak also by telling"
)]

mod judge;
mod load;
#[path = "../e2e/stack.rs"]
#[allow(dead_code, reason = "the stories use more of it")]
mod stack;
mod watch;

use std::path::Path;
use std::time::Duration;

use stack::Stack;

/// How long, and how often we look.
struct Length {
    total: Duration,
    window: Duration,
    /// Whether it is long enough to tell creeping from settling.
    judged: bool,
}

impl Length {
    fn wanted() -> Self {
        match std::env::var("AIRSTREAM_SOAK_MINUTES") {
            Err(_) => Self { total: Duration::from_secs(10), window: Duration::from_secs(1), judged: false },
            Ok(minutes) => {
                let minutes: f64 = minutes.parse().expect("AIRSTREAM_SOAK_MINUTES is a number of minutes");
                let total = Duration::from_secs_f64(minutes * 60.0);
                Self { total, window: Duration::from_secs(5), judged: minutes >= 3.0 }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_steady_load_lets_nothing_creep() {
    let length = Length::wanted();
    // The writers' caches are to be full within the first minute: what grows after that, grows for another reason.
    let stack = Stack::up_with(&[], &[("AIRSTREAM__EXECUTOR__STREAMS_PER_SHARD", "64")]);
    let load = load::Load::begin(&stack).await;
    let samples = watch::watch(&stack, &load, length.total, length.window).await;
    let left = load.end().await;
    let verdict = judge::judge(&samples, &left, length.judged);
    // Before anything can fail: a soak that found something is the one whose samples are wanted.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("soak");
    watch::write(&folder, &samples);
    std::fs::write(folder.join("summary.json"), serde_json::to_vec_pretty(&verdict).unwrap()).unwrap();
    eprintln!("{verdict:#}");
    // Rows are what the log says, and nothing waits for a person.
    let verified = stack.run(&["projections", "verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
    assert_eq!(verdict["complaints"], serde_json::json!([]), "samples and summary are in {}", folder.display());
}
