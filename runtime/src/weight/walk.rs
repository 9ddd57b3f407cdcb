//! Adds up what a value holds on the heap, by serializing it into nothing.
//!
//! A serializer is shown every value, and of fields also the place they stand in: one that needs more than the place of one
//! pointer (`Box`, `Arc`) is behind that pointer. The elements of a list and the entries of a map are shown by reference,
//! so their places are what the values need, or a place of JSON where they may be JSON. What several places share is counted
//! for each, because nobody knows which of them will be dropped last; what is not serialized is not seen.

use serde::Serialize;
use serde_json::Value;

use super::block;
use serializer::Refused;

mod serializer;

/// Slots of a node of the standard library's B-tree, and what else is in a node.
const SLOTS: usize = 11;
const NODE: usize = 16;
/// Entries for each node when keys come in order and one node is not enough: six in it, one above it.
const PER_NODE: usize = 7;
/// What the nodes above have more than the others.
const CHILDREN: usize = (SLOTS + 1) * size_of::<usize>();
/// The counters in front of a shared value.
const COUNTERS: usize = 16;

/// The bytes of memory a boxed value takes; `None` for one that refuses to be serialized.
pub(super) fn weigh<S: Serialize>(value: &S) -> Option<usize> {
    let mut walk = Walk { heap: block(size_of::<S>()) };
    value.serialize(&mut walk).ok().map(|_| walk.heap)
}

struct Walk {
    heap: usize,
}

/// How large a value is where it stands, without what it points to, in bytes.
#[derive(Clone, Copy)]
struct Size {
    at_least: usize,
    likely: usize,
}

impl Size {
    const fn of<T>() -> Self {
        Self { at_least: size_of::<T>(), likely: size_of::<T>() }
    }

    /// Of what may as well be a part of some JSON.
    const fn of_json<T>() -> Self {
        Self { at_least: size_of::<T>(), likely: size_of::<Value>() }
    }

    const fn exactly(bytes: usize) -> Self {
        Self { at_least: bytes, likely: bytes.next_multiple_of(align_of::<usize>()) }
    }
}

impl Walk {
    /// Adds what a value points to that stands in a place of its own type.
    fn visit<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<Size, Refused> {
        let place = size_of_val(value);
        let size = value.serialize(&mut *self)?;
        if place == size_of::<usize>() && size.at_least > place {
            self.heap += block(COUNTERS + size.at_least);
        }
        Ok(Size { at_least: place, likely: place })
    }
}

/// The fields of a value, one behind the other.
struct Fields<'a> {
    walk: &'a mut Walk,
    bytes: usize,
}

/// The elements of a list, or the entries of a map. Their places are as large as the largest.
struct Many<'a> {
    walk: &'a mut Walk,
    count: usize,
    key_bytes: usize,
    value_bytes: usize,
}

impl<'a> Many<'a> {
    fn new(walk: &'a mut Walk) -> Self {
        Self { walk, count: 0, key_bytes: 0, value_bytes: 0 }
    }

    fn key(&mut self, size: Size) {
        self.count += 1;
        self.key_bytes = self.key_bytes.max(size.likely);
    }

    fn value(&mut self, size: Size) {
        self.value_bytes = self.value_bytes.max(size.likely);
    }

    /// A list that was read or pushed one by one has room for a power of two.
    fn list(self) -> Size {
        if self.count > 0 {
            self.walk.heap += block(self.value_bytes * self.count.next_power_of_two().max(4));
        }
        Size::of_json::<Vec<u8>>()
    }

    /// Nodes are as large for one entry as for eleven.
    fn map(self) -> Size {
        if self.count > 0 {
            let node = NODE + SLOTS * (self.key_bytes + self.value_bytes);
            let (nodes, above) = match self.count {
                ..=SLOTS => (1, 0),
                count => (count.div_ceil(PER_NODE), count.div_ceil(PER_NODE * PER_NODE)),
            };
            self.walk.heap += nodes * block(node) + above * block(node + CHILDREN);
        }
        Size::of_json::<Vec<u8>>()
    }
}
