//! What a writer remembers of a stream between two commands.

use std::any::Any;
use std::collections::VecDeque;

use kernel::{Commit, Position};
use serde::{Deserialize, Serialize};

use crate::weight::{Weigher, block};

/// A state whose type only its decider knows.
pub(crate) type BoxState = Box<dyn Any + Send + Sync>;

/// A folded stream: state, version, last position, and the ids of its recent commits.
pub(crate) struct Folded {
    pub(crate) state: BoxState,
    pub(crate) version: u64,
    pub(crate) position: Position,
    pub(crate) recent: Recent,
    /// Payload bytes that went into the state.
    pub(crate) bytes: usize,
    /// What the state takes in memory.
    pub(crate) weighed: Weighed,
    /// Commits since the last snapshot was taken or used.
    pub(crate) unsaved_commits: u32,
}

impl Folded {
    /// Nothing yet; of its commits it will remember the newest `ids`.
    pub(crate) fn new(state: BoxState, ids: usize) -> Self {
        let recent = Recent::default().limited_to(ids);
        let weighed = Weighed::default();
        Self { state, version: 0, position: Position::START, recent, bytes: 0, weighed, unsaved_commits: 0 }
    }

    /// Moves past a commit whose events are already in the state.
    pub(crate) fn advance(&mut self, id: &str, version: u64, position: Position) {
        self.version = version;
        self.position = position;
        self.unsaved_commits = self.unsaved_commits.saturating_add(1);
        self.recent.remember(id, position);
    }

    /// Moves past a commit read from the log.
    pub(crate) fn advance_past(&mut self, commit: &Commit<'_>, position: Position) {
        self.advance(commit.id(), commit.version_after(), position);
    }

    /// Weighs the state again if enough has been folded since the last time.
    pub(crate) fn weigh(&mut self, weigher: Weigher) {
        let unweighed = self.bytes - self.weighed.history;
        if self.weighed.state == 0 || unweighed * WALKED_PER_BYTE >= self.weighed.state {
            self.weighed = Weighed { state: weigher.weigh(&self.state, self.bytes), history: self.bytes };
        }
    }

    /// Bytes of memory that it holds beside itself. What was folded since the state was weighed counts as it was written.
    pub(crate) fn owned_bytes(&self) -> usize {
        let unweighed = self.bytes - self.weighed.history;
        self.weighed.state + unweighed + self.recent.owned_bytes()
    }
}

/// A state is weighed again when it is not heavier than so many times the history folded since: then weighing costs no more
/// than walking so many bytes for each one folded, and the weight is wrong by no more than such a part of itself.
const WALKED_PER_BYTE: usize = 16;

/// What a state takes in memory, as of some time ago.
#[derive(Clone, Copy, Default)]
pub(crate) struct Weighed {
    /// In bytes; 0 before the first time.
    state: usize,
    /// [`Folded::bytes`] at that time.
    history: usize,
}

/// Ids of a stream's newest commits, as hashes of 8 bytes with an 8-byte position. A hit is confirmed in the log, so a
/// collision costs a read, not a wrong answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recent {
    /// Oldest first.
    ring: VecDeque<(u64, Position)>,
    /// How many are kept: a limit of this process, not part of what a snapshot says.
    #[serde(skip)]
    capacity: usize,
    /// Whether older ids have been dropped, so that absence here proves nothing.
    forgot: bool,
}

impl Recent {
    /// Keeps the newest `capacity` ids from now on, at least one.
    pub(crate) fn limited_to(mut self, capacity: usize) -> Self {
        self.capacity = capacity.max(1);
        while self.ring.len() > self.capacity {
            self.forget();
        }
        self
    }

    fn remember(&mut self, id: &str, position: Position) {
        if self.ring.len() >= self.capacity.max(1) {
            self.forget();
        }
        self.ring.push_back((hash(id), position));
    }

    fn forget(&mut self) {
        self.ring.pop_front();
        self.forgot = true;
    }

    fn owned_bytes(&self) -> usize {
        block(self.ring.capacity() * size_of::<(u64, Position)>())
    }

    /// Positions of commits that may carry this id, newest first.
    pub(crate) fn candidates(&self, id: &str) -> Vec<Position> {
        let wanted = hash(id);
        self.ring.iter().rev().filter(|(hash, _)| *hash == wanted).map(|(_, position)| *position).collect()
    }

    /// Where the newest commit stands.
    pub(crate) fn newest(&self) -> Option<Position> {
        self.ring.back().map(|(_, position)| *position)
    }

    /// Whether the newest commit is the one with this id at this position.
    pub(crate) fn ends_with(&self, id: &str, position: Position) -> bool {
        self.ring.back() == Some(&(hash(id), position))
    }

    /// The oldest commit still remembered, when older ones were forgotten.
    pub(crate) fn forgotten_before(&self) -> Option<Position> {
        self.forgot.then(|| self.ring.front().map(|(_, position)| *position)).flatten()
    }
}

/// FNV-1a: snapshots keep these hashes, so they must be the same in every process; std's hashers do not promise that.
fn hash(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
