//! How much memory a folded state takes: what the budget of the writers' caches is counted in.
//!
//! A state that owns nothing weighs what its type says. One that can be written out is walked: `serde` shows every value in
//! it, so that its texts, lists and maps can be added up without writing a byte. Of all others it is guessed.

use serde::Serialize;

use crate::folded::BoxState;

#[cfg(test)]
pub(crate) mod allocator;
#[cfg(test)]
mod tests;
mod walk;

/// Of states that nobody can look into: bytes of memory per byte of history, as measured for states that keep all of it as
/// JSON. Those that forget are lighter.
const GUESSED_PER_BYTE: usize = 3;

/// How the states of one category are weighed.
#[derive(Clone, Copy)]
pub(crate) enum Weigher {
    /// They own nothing, so every one of them takes this.
    Same(usize),
    /// They are walked.
    Walked(fn(&BoxState) -> Option<usize>),
    /// They take this, and what they own is guessed.
    Guessed(usize),
}

impl Weigher {
    /// For states that cannot be written out.
    pub(crate) fn of<S: 'static>() -> Self {
        let own = block(size_of::<S>());
        if std::mem::needs_drop::<S>() { Self::Guessed(own) } else { Self::Same(own) }
    }

    /// For states that can.
    pub(crate) fn walking<S: Serialize + 'static>() -> Self {
        match std::mem::needs_drop::<S>() {
            true => Self::Walked(|state| walk::weigh(state.downcast_ref::<S>()?)),
            false => Self::of::<S>(),
        }
    }

    /// What a state that was folded from so many bytes of history takes in memory.
    pub(crate) fn weigh(self, state: &BoxState, history_bytes: usize) -> usize {
        let guess = |own: usize| own + history_bytes * GUESSED_PER_BYTE;
        match self {
            Self::Same(bytes) => bytes,
            Self::Walked(weigh) => weigh(state).unwrap_or_else(|| guess(0)),
            Self::Guessed(own) => guess(own),
        }
    }
}

/// What the allocator takes for a block of so many bytes: its own word, and a multiple of sixteen.
pub(crate) const fn block(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=24 => 32,
        _ => (bytes + 8).next_multiple_of(16),
    }
}
