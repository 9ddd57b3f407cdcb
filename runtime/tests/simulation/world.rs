//! What all processes of a history share: the servers behind the ports, chance, time, and the notes that are taken.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use checker::{Asked, Performed, Queued};
use kernel::StreamName;
use runtime::memory::{MemoryEffects, MemoryIndex, MemoryLeases, MemoryLog};
use tokio::time::Instant;

use crate::faults::{Fault, Faults, Mutation};
use crate::random::Random;
use crate::rows::Rows;
use crate::trace::Trace;

/// The world of one history.
pub(crate) struct World {
    pub(crate) faults: Faults,
    pub(crate) mutation: Mutation,
    pub(crate) log: MemoryLog,
    pub(crate) index: MemoryIndex,
    pub(crate) effects: MemoryEffects,
    pub(crate) leases: MemoryLeases,
    pub(crate) rows: Rows,
    began: Instant,
    state: Mutex<State>,
}

/// What changes.
pub(crate) struct State {
    pub(crate) random: Random,
    pub(crate) trace: Trace,
    pub(crate) healed: bool,
    /// Writes that are on their way while nobody waits for them any more.
    pub(crate) late_writes: u32,
    pub(crate) asked: Vec<Asked>,
    pub(crate) queued: Vec<Queued>,
    pub(crate) performed: Vec<Performed>,
    /// What no law can be read from: said at once by whoever notices.
    pub(crate) complaints: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, mutation: Mutation, keep_trace: bool) -> Self {
        let mut random = Random::new(seed);
        Self {
            faults: Faults::draw(&mut random),
            mutation,
            log: MemoryLog::new(),
            index: MemoryIndex::default(),
            effects: MemoryEffects::default(),
            leases: MemoryLeases::default(),
            rows: Rows::default(),
            began: Instant::now(),
            state: Mutex::new(State {
                random,
                trace: Trace::new(keep_trace),
                healed: false,
                late_writes: 0,
                asked: Vec::new(),
                queued: Vec::new(),
                performed: Vec::new(),
                complaints: Vec::new(),
            }),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        let at = self.began.elapsed().as_millis();
        self.state().trace.line(at, line);
    }

    /// What must never be, whatever went wrong.
    pub(crate) fn complain(&self, sentence: String) {
        self.note(format_args!("!! {sentence}"));
        self.state().complaints.push(sentence);
    }

    pub(crate) fn healed(&self) -> bool {
        self.state().healed
    }

    /// Whether a fault happens now. Never after the world was healed.
    pub(crate) fn strikes(&self, fault: Fault) -> bool {
        let mut state = self.state();
        let struck = state.random.chance(self.faults.per_mille(fault)) && !state.healed;
        drop(state);
        if struck {
            self.note(format_args!("   fault: {fault:?}"));
        }
        struck
    }

    pub(crate) fn below(&self, limit: u64) -> u64 {
        self.state().random.below(limit)
    }

    pub(crate) fn between_ms(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.state().random.between(low, high))
    }

    /// How long a step takes: mostly no time at all, now and then very long.
    pub(crate) fn latency(&self) -> Duration {
        let mut state = self.state();
        let ms = match state.random.below(20) {
            0..12 => 0,
            12..18 => state.random.between(1, 5),
            18 => state.random.between(5, 60),
            _ if state.healed => 1,
            _ => state.random.between(1, self.faults.slowest_ms),
        };
        Duration::from_millis(ms)
    }

    pub(crate) fn door(&self) -> StreamName {
        let n = self.below(self.faults.doors);
        StreamName::new(crate::domain::TENANT, "door", &format!("d{n}")).unwrap()
    }
}
