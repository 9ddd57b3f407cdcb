//! Seeded histories: the machines of this crate in a small world in which everything goes wrong that can.
//!
//! A history is a few processes, clients and a queue over the memory adapters, with one log, one index and one database.
//! Between them lies a network that loses requests and answers, delivers twice, delays writes until their callers have given
//! up, and reads from replicas that are behind ([`faults`]). Processes are killed at any step, stopped and woken again, and
//! restarted ([`chaos`]); leases are lost in the middle, so that two instances believe to own one consumer, and every
//! instance writes every shard. How a process dies is told in [`gate`].
//!
//! Everything follows from the seed: time is tokio's paused clock, which passes only when everybody waits; chance, ids and
//! noise come from `clock::simulated` and [`random`]; one thread runs one history. So a seed that breaks a law can be lived
//! through again, line by line: see `docs/howto/replay-a-failing-seed.md`.
//!
//! When the troubles are over the world gets time to come to rest. Then the checker reads the log and what the callers heard,
//! and [`laws`] adds what only this world can know. Each defect of [`faults::Mutation`] must be caught, or the laws are
//! worth nothing.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests report by panicking and printing")]

mod chaos;
mod clients;
mod domain;
mod faults;
mod found;
mod gate;
mod history;
mod instance;
mod laws;
mod log;
mod random;
mod rows;
mod stores;
mod trace;
mod world;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use faults::Mutation;
use history::{Outcome, live, note_panics};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

/// What a failing seed says of itself.
fn report(seed: u64, outcome: &Outcome) -> String {
    let violations = outcome.violations.join("\n  ");
    format!(
        "seed {seed} breaks a law:\n  {violations}\nreplay it with\n  AIRSTREAM_SIM_SEED={seed} cargo test -p runtime --test \
         simulation -- --nocapture one_seed"
    )
}

/// Lives through seeds on every core, until all are done or one fails.
fn live_through(seeds: &[u64]) -> Result<(), String> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (lived, commits, tries) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let work = || -> Result<(), String> {
        while !stop.load(Ordering::Relaxed)
            && let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed))
        {
            let outcome = live(*seed, Mutation::None, false);
            lived.fetch_add(1, Ordering::Relaxed);
            commits.fetch_add(outcome.commits as u64, Ordering::Relaxed);
            tries.fetch_add(outcome.tries as u64, Ordering::Relaxed);
            if !outcome.violations.is_empty() {
                stop.store(true, Ordering::Relaxed);
                return Err(report(*seed, &outcome));
            }
        }
        Ok(())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (seconds, lived) = (began.elapsed().as_secs_f64(), lived.into_inner() as f64);
    eprintln!(
        "{lived} histories in {seconds:.1} s: {:.0} a second, {:.0} commits and {:.0} tries each",
        lived / seconds,
        commits.into_inner() as f64 / lived,
        tries.into_inner() as f64 / lived,
    );
    results.into_iter().collect()
}

/// Half of the seeds are always the same, so that a change that breaks one of them fails for everybody; the other half are
/// new each time, so that the search goes on. `AIRSTREAM_SIM_SEEDS` sets how many there are.
#[test]
#[allow(clippy::disallowed_methods, reason = "the only place here that may not be repeatable; it prints what it chose")]
fn histories_keep_every_promise() {
    note_panics();
    let half = variable("AIRSTREAM_SIM_SEEDS").unwrap_or(2_000) / 2;
    let base = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 * 1_000_000;
    eprintln!("seeds 0 to {half} and {half} from {base}");
    let seeds: Vec<u64> = (0..half).chain(base..base + half).collect();
    if let Err(report) = live_through(&seeds) {
        panic!("{report}");
    }
}

/// `AIRSTREAM_SIM_SEED=7 cargo test -p runtime --test simulation -- --nocapture one_seed` tells the history of seed 7.
#[test]
fn one_seed_is_one_history() {
    note_panics();
    let chosen = variable("AIRSTREAM_SIM_SEED");
    let seeds: Vec<u64> = chosen.map_or_else(|| (0..40).collect(), |seed| vec![seed]);
    for seed in seeds {
        let (one, other) = (live(seed, Mutation::None, true), live(seed, Mutation::None, true));
        if chosen.is_some() {
            eprintln!("{}", one.lines);
        }
        let parting = one.lines.lines().zip(other.lines.lines()).find(|(one, other)| one != other);
        assert_eq!(one.hash, other.hash, "seed {seed} tells two different histories; they part at {parting:?}");
        assert!(one.violations.is_empty(), "{}", report(seed, &one));
    }
}

/// Laws that nothing can break prove nothing: each defect is found within so many histories.
#[test]
fn a_defect_in_any_adapter_is_caught() {
    const WITHIN: u64 = 300;
    note_panics();
    for mutation in Mutation::ALL {
        let caught = (0..WITHIN).find_map(|seed| {
            let outcome = live(seed, mutation, false);
            outcome.violations.first().map(|violation| (seed, violation.clone()))
        });
        let (seed, violation) = caught.unwrap_or_else(|| panic!("{mutation:?} went unnoticed in {WITHIN} histories"));
        eprintln!("{mutation:?} was caught by seed {seed}: {violation}");
    }
}
