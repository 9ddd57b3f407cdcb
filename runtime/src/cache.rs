//! What one writer remembers of its streams, and how much of it there is room for.

use std::num::NonZeroUsize;

use kernel::StreamName;
use lru::LruCache;

use crate::folded::Folded;
use crate::weight::block;

/// What an entry takes beside the folded stream in it: two links of the list, and a slot of a table that is half full.
const LINKS_BYTES: usize = 2 * size_of::<usize>();
const SLOT_BYTES: usize = 2 * (2 * size_of::<usize>() + 1);
/// The counters in front of a shared text.
const COUNTERS_BYTES: usize = 2 * size_of::<usize>();

/// Folded streams, the least recently used of which go first when there are too many, or when they are too heavy.
pub(crate) struct Cache {
    streams: LruCache<StreamName, Folded>,
    /// What all entries weigh, in bytes of memory.
    weight: usize,
    max_weight: usize,
}

impl Cache {
    /// With room for so many streams, and for so many bytes of memory.
    pub(crate) fn new(max_streams: usize, max_weight: usize) -> Self {
        let capacity = NonZeroUsize::new(max_streams).unwrap_or(NonZeroUsize::MIN);
        Self { streams: LruCache::new(capacity), weight: 0, max_weight }
    }

    /// Hands a stream over to whoever works on it.
    pub(crate) fn take(&mut self, stream: &StreamName) -> Option<Folded> {
        let (stream, folded) = self.streams.pop_entry(stream)?;
        self.weight -= weight(&stream, &folded);
        Some(folded)
    }

    /// Remembers a stream, and forgets others if there is no room for all. One that is too heavy by itself is not worth
    /// forgetting all others for.
    pub(crate) fn keep(&mut self, stream: StreamName, folded: Folded) {
        let more = weight(&stream, &folded);
        if more > self.max_weight {
            return;
        }
        self.weight += more;
        let mut evicted = self.streams.push(stream, folded);
        loop {
            if let Some((stream, folded)) = evicted {
                self.weight -= weight(&stream, &folded);
            }
            if self.weight <= self.max_weight {
                return;
            }
            evicted = self.streams.pop_lru();
        }
    }
}

/// What an entry takes in memory, in bytes. It stays the same as long as the entry is here.
fn weight(stream: &StreamName, folded: &Folded) -> usize {
    let name = [stream.tenant.as_str(), stream.category.as_str(), stream.id.as_str()];
    let name: usize = name.iter().map(|part| block(COUNTERS_BYTES + part.len())).sum();
    block(size_of::<(StreamName, Folded)>() + LINKS_BYTES) + SLOT_BYTES + name + folded.owned_bytes()
}
