//! Nothing accepted is lost and nothing is doubled, whatever is killed, paused or restarted, and whenever.
//!
//! Many callers ask two `airstream serve` over NATS and HTTP, and ask again with the same command id until they hear a
//! final answer. Meanwhile the processes, nats-server and PostgreSQL are killed with -9, stopped and continued, and ended
//! in order. When everything has come to rest, the package `checker`, which shares no code with the platform, looks at the
//! log, the rows, the effects and what the callers heard.
//!
//! **What a seed replays.** The commands (`mix.rs`), the faults and after how many answered commands each one strikes
//! (`plan.rs`), and what each worker does with a task follow from the seed alone. How real processes interleave does not:
//! the same seed is the same attack, not the same microseconds. A seed that has failed fails again often, not always; the
//! simulation beside this, on memory adapters, is what replays a history exactly.
//!
//! ```text
//! AIRSTREAM_CHAOS_SEED=… cargo test -p airstream --test chaos -- --nocapture
//! ```

#![allow(clippy::unwrap_used, missing_docs, reason = "tests report by panicking")]
#![allow(clippy::print_stderr, reason = "people watch it for minutes")]

mod airstream;
mod caller;
mod dice;
mod drive;
mod evidence;
mod hook;
mod ledger;
mod mix;
mod plan;
mod profile;
mod report;
mod rest;
mod workers;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;

use profile::Profile;
use world::World;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_and_nothing_is_doubled_whatever_is_killed() {
    // One provider for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let profile = Profile::from_environment();
    eprintln!("seed {}: {}", profile.seed, profile.replay());
    let world = World::start(profile.seed).await;
    let mut report = report::Report::new(&profile, &world);
    // A panic in here, such as a deadline that passed, is a finding like any other: the logs are kept.
    let story = story(profile.clone(), Arc::clone(&world), report.strikes.clone());
    let story = async {
        tokio::select! {
            violations = story => violations,
            failure = world.stack.failed() => vec![format!("a server could not be brought back: {failure}")],
        }
    };
    match AssertUnwindSafe(story).catch_unwind().await {
        Ok(violations) => report.add(violations),
        Err(panic) => report.panicked(panic),
    }
    report.end(world);
}

async fn story(profile: Profile, world: Arc<World>, strikes: drive::Strikes) -> Vec<String> {
    let driven = drive::drive(&profile, &world, strikes).await;
    world.heal().await;
    let mut found = rest::reached(&profile, &world, &driven).await;
    driven.workers_end().await;
    found.extend(evidence::judge(&world, &driven).await);
    found
}
