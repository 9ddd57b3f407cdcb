//! What one writer remembers of its streams, and how much of it there is room for.

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
    max_streams: usize,
    /// What all entries weigh, in bytes of memory.
    weight: usize,
    max_weight: usize,
}

impl Cache {
    /// With room for so many streams, and for so many bytes of memory.
    pub(crate) fn new(max_streams: usize, max_weight: usize) -> Self {
        // Without a limit of its own it grows with what is in it, instead of having room for all from the beginning.
        Self { streams: LruCache::unbounded(), max_streams, weight: 0, max_weight }
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
        self.streams.push(stream, folded);
        while (self.weight > self.max_weight || self.streams.len() > self.max_streams)
            && let Some((stream, folded)) = self.streams.pop_lru()
        {
            self.weight -= weight(&stream, &folded);
        }
    }
}

/// What an entry takes in memory, in bytes. It stays the same as long as the entry is here.
fn weight(stream: &StreamName, folded: &Folded) -> usize {
    let name = [stream.tenant.as_str(), stream.category.as_str(), stream.id.as_str()];
    let name: usize = name.iter().map(|part| block(COUNTERS_BYTES + part.len())).sum();
    block(size_of::<(StreamName, Folded)>() + LINKS_BYTES) + SLOT_BYTES + name + folded.owned_bytes()
}

#[cfg(test)]
mod tests {
    use kernel::Position;

    use super::*;
    use crate::weight::Weigher;
    use crate::weight::allocator::held_by;

    type State = Vec<String>;

    fn name(number: usize) -> StreamName {
        StreamName::new("dev", "list", &format!("l_{number:08}")).expect("a name")
    }

    /// A stream that was folded from so many commits of a kilobyte into so many lines of a hundred bytes.
    fn folded(commits: usize, lines: usize) -> Folded {
        let state: State = (0..lines).map(|_| "x".repeat(100)).collect();
        let mut folded = Folded::new(Box::new(state), 128);
        for n in 1..=commits as u64 {
            folded.bytes += 1_000;
            folded.advance(&format!("c{n}"), n, Position::at(n));
        }
        folded.weigh(Weigher::walking::<State>());
        folded
    }

    fn knows(cache: &Cache, number: usize) -> bool {
        cache.streams.contains(&name(number))
    }

    #[test]
    fn a_long_history_with_a_small_state_is_light() {
        let mut cache = Cache::new(1_000, 100_000);
        cache.keep(name(0), folded(10_000, 1));
        for number in 1..=20 {
            cache.keep(name(number), folded(10, 1));
        }
        assert!((0..=20).all(|number| knows(&cache, number)), "ten megabytes of history pushed somebody out");
    }

    #[test]
    fn a_large_state_is_heavy_however_short_its_history() {
        let mut cache = Cache::new(1_000, 100_000);
        for number in 0..3 {
            cache.keep(name(number), folded(1, 250));
        }
        assert!([0, 1, 2].map(|number| knows(&cache, number)) == [false, true, true], "each takes a third and more");
    }

    #[test]
    fn a_stream_that_is_too_heavy_by_itself_pushes_nobody_out() {
        let mut cache = Cache::new(1_000, 100_000);
        cache.keep(name(0), folded(1, 1));
        cache.keep(name(1), folded(1, 2_000));
        assert!(knows(&cache, 0) && !knows(&cache, 1));
    }

    #[test]
    fn the_oldest_goes_first_when_there_are_too_many() {
        let mut cache = Cache::new(2, 100_000);
        for number in [0, 1] {
            cache.keep(name(number), folded(1, 1));
        }
        let first = cache.take(&name(0)).expect("it is there");
        cache.keep(name(0), first);
        cache.keep(name(2), folded(1, 1));
        assert!([0, 1, 2].map(|number| knows(&cache, number)) == [true, false, true]);
    }

    #[test]
    fn the_budget_is_kept_and_used_in_bytes_that_the_allocator_gives() {
        for (commits, lines) in [(1, 0), (1, 3), (1, 200), (40, 10), (200, 1)] {
            let budget = 2_000_000;
            let (mut cache, held) = held_by(|| {
                let mut cache = Cache::new(20_000, budget);
                for number in 0..15_000 {
                    cache.keep(name(number), folded(commits, lines));
                    assert!(cache.weight <= budget);
                }
                cache
            });
            let what = format!("{commits} commits and {lines} lines: {held} bytes for a budget of {budget}");
            assert!(held < budget * 12 / 10 && held > budget * 7 / 10, "{what}");
            for number in 0..15_000 {
                cache.take(&name(number));
            }
            assert_eq!(cache.weight, 0, "what is taken out weighs what it weighed when it was put in");
        }
    }

    #[test]
    fn a_state_that_grows_or_shrinks_is_weighed_again_in_time() {
        let weigher = Weigher::walking::<State>();
        let (small, large) = (folded(1, 1).owned_bytes(), folded(1, 100).owned_bytes());
        let mut folded = folded(1, 1);
        for (lines, expected) in [(100, large), (1, small), (100, large)] {
            folded.state = Box::new(vec!["x".repeat(100); lines]);
            folded.bytes += 1_000;
            folded.weigh(weigher);
            assert!(folded.owned_bytes().abs_diff(expected) <= expected / 8, "{} for {expected}", folded.owned_bytes());
        }
        // A state that is much heavier than what came since is not walked for every commit.
        folded.state = Box::new(vec!["x".repeat(100); 1_000]);
        folded.bytes += 20_000;
        folded.weigh(weigher);
        let weight = folded.owned_bytes();
        folded.state = Box::new(State::new());
        for _ in 0..5 {
            folded.bytes += 1_000;
            folded.weigh(weigher);
        }
        assert_eq!(folded.owned_bytes(), weight + 5_000);
        folded.bytes += 20_000;
        folded.weigh(weigher);
        assert!(folded.owned_bytes() < small, "{}", folded.owned_bytes());
    }
}
