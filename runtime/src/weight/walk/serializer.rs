//! What `serde` calls while a value is walked: plumbing between its many methods and the few kinds of places.

use std::fmt::{self, Display};

use serde::Serialize;
use serde::ser::{self, Serializer};

use super::{Fields, Many, Size, Walk, block};

/// A value that refuses to be serialized.
#[derive(Debug)]
pub(super) struct Refused;

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
