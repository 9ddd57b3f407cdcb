//! Adds up what a value holds on the heap, by serializing it into nothing.
//!
//! A serializer is shown every value, and of fields also the place they stand in: one that needs more than the place of one
//! pointer (`Box`, `Arc`) is behind that pointer. The elements of a list and the entries of a map are shown by reference,
//! so their places are what the values need, or a place of JSON where they may be JSON. What several places share is counted
//! for each, because nobody knows which of them will be dropped last; what is not serialized is not seen.

use std::fmt::{self, Display};

use serde::Serialize;
use serde::ser::{self, Serializer};
use serde_json::Value;

use super::block;

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

/// A value that refuses to be serialized.
#[derive(Debug)]
struct Refused;

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value refused to be serialized")
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: Display>(_: T) -> Self {
        Self
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

macro_rules! plain {
    ($size:ident: $($method:ident: $type:ty),*) => {
        $(fn $method(self, _: $type) -> Result<Size, Refused> {
            Ok(Size::$size::<$type>())
        })*
    };
}

impl<'a> Serializer for &'a mut Walk {
    type Ok = Size;
    type Error = Refused;
    type SerializeSeq = Many<'a>;
    type SerializeTuple = Fields<'a>;
    type SerializeTupleStruct = Fields<'a>;
    type SerializeTupleVariant = Fields<'a>;
    type SerializeMap = Many<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Fields<'a>;

    plain!(of: serialize_char: char, serialize_f32: f32, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32);
    plain!(of: serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_i128: i128, serialize_u128: u128);
    plain!(of_json: serialize_bool: bool, serialize_f64: f64, serialize_i64: i64, serialize_u64: u64);

    fn serialize_str(self, text: &str) -> Result<Size, Refused> {
        self.heap += block(text.len());
        Ok(Size::of_json::<Box<str>>())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Size, Refused> {
        self.heap += block(bytes.len());
        Ok(Size::of::<Box<[u8]>>())
    }

    /// Dates and the like: they are written as text and kept as numbers.
    fn collect_str<T: ?Sized + Display>(self, _: &T) -> Result<Size, Refused> {
        Ok(Size { at_least: 0, likely: 16 })
    }

    fn serialize_none(self) -> Result<Size, Refused> {
        Ok(Size::of_json::<()>())
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<Size, Refused> {
        self.visit(value)
    }

    fn serialize_unit(self) -> Result<Size, Refused> {
        Ok(Size::of_json::<()>())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Size, Refused> {
        Ok(Size::of::<()>())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<Size, Refused> {
        Ok(Size::of::<()>())
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &'static str, value: &T) -> Result<Size, Refused> {
        self.visit(value)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Size, Refused> {
        self.visit(value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Many<'a>, Refused> {
        Ok(Many::new(self))
    }

    fn collect_seq<I: IntoIterator<Item: Serialize>>(self, elements: I) -> Result<Size, Refused> {
        let mut list = Many::new(self);
        for element in elements {
            let size = element.serialize(&mut *list.walk)?;
            list.count += 1;
            list.value(size);
        }
        Ok(list.list())
    }

    fn serialize_tuple(self, _: usize) -> Result<Fields<'a>, Refused> {
        Ok(Fields { walk: self, bytes: 0 })
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Fields<'a>, Refused> {
        Ok(Fields { walk: self, bytes: 0 })
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Fields<'a>, Refused> {
        Ok(Fields { walk: self, bytes: 0 })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Many<'a>, Refused> {
        Ok(Many::new(self))
    }

    fn collect_map<K: Serialize, V: Serialize, I: IntoIterator<Item = (K, V)>>(
        self,
        entries: I,
    ) -> Result<Size, Refused> {
        let mut map = Many::new(self);
        for (key, value) in entries {
            let size = key.serialize(&mut *map.walk)?;
            map.key(size);
            let size = value.serialize(&mut *map.walk)?;
            map.value(size);
        }
        Ok(map.map())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'a>, Refused> {
        Ok(Fields { walk: self, bytes: 0 })
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Fields<'a>, Refused> {
        Ok(Fields { walk: self, bytes: 0 })
    }
}

impl ser::SerializeSeq for Many<'_> {
    type Ok = Size;
    type Error = Refused;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Refused> {
        let size = self.walk.visit(value)?;
        self.count += 1;
        self.value(size);
        Ok(())
    }

    fn end(self) -> Result<Size, Refused> {
        Ok(self.list())
    }
}

impl ser::SerializeMap for Many<'_> {
    type Ok = Size;
    type Error = Refused;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), Refused> {
        let size = self.walk.visit(key)?;
        self.key(size);
        Ok(())
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Refused> {
        let size = self.walk.visit(value)?;
        self.value(size);
        Ok(())
    }

    fn end(self) -> Result<Size, Refused> {
        Ok(self.map())
    }
}

macro_rules! fields {
    ($($trait:ident, $method:ident ($($name:ident: $type:ty)?);)*) => {
        $(impl ser::$trait for Fields<'_> {
            type Ok = Size;
            type Error = Refused;

            fn $method<T: ?Sized + Serialize>(&mut self, $($name: $type,)? value: &T) -> Result<(), Refused> {
                self.bytes += self.walk.visit(value)?.at_least;
                Ok(())
            }

            fn end(self) -> Result<Size, Refused> {
                Ok(Size::exactly(self.bytes))
            }
        })*
    };
}

fields! {
    SerializeTuple, serialize_element();
    SerializeTupleStruct, serialize_field();
    SerializeTupleVariant, serialize_field();
    SerializeStruct, serialize_field(_name: &'static str);
    SerializeStructVariant, serialize_field(_name: &'static str);
}
