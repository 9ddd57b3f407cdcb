//! How a category's list of events becomes an [`EventSet`](kernel::EventSet).

use kernel::FactError;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// One step of a chain: the data of a type in `from_version` becomes that of the version after it. `None` says that no
/// such step was ever written.
pub(crate) type Upcast = fn(type_name: &str, from_version: u32, data: Value) -> Option<Value>;

/// For categories that have no old versions yet.
pub(crate) fn no_old_versions(_type_name: &str, _from_version: u32, _data: Value) -> Option<Value> {
    None
}

/// Reads data of any version up to `current`. The current version is read straight from its text.
pub(crate) fn read<T: DeserializeOwned>(
    type_name: &str,
    current: u32,
    found: u32,
    data: &RawValue,
    upcast: Upcast,
) -> Result<T, FactError> {
    let misfit = |reason: String| FactError::Misfit { type_name: type_name.to_owned(), reason };
    if found > current {
        return Err(FactError::FutureVersion { type_name: type_name.to_owned(), found, known: current });
    }
    if found == current {
        return serde_json::from_str(data.get()).map_err(|error| misfit(error.to_string()));
    }
    let old: Value = serde_json::from_str(data.get()).map_err(|error| misfit(error.to_string()))?;
    let data = (found..current).try_fold(old, |data, version| {
        upcast(type_name, version, data).ok_or_else(|| misfit(format!("nothing reads its schema version {version}")))
    })?;
    serde_json::from_value(data).map_err(|error| misfit(error.to_string()))
}

/// Lists the events of a category: a struct of this module, its wire name, its current version. Makes the enum `Event`
/// with a variant per struct, its `EventSet`, and a `From` for every struct.
macro_rules! facts {
    (
        $(#[$about:meta])*
        pub enum Event, upcast $upcast:path;
        $($variant:ident = $name:literal, version $version:literal;)+
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "an event lives for one fold: a box costs more than the room")]
        pub enum Event {
            $(#[doc = concat!("`", $name, "`")] $variant($variant),)+
        }

        impl ::kernel::EventSet for Event {
            const TYPES: &'static [(&'static str, u32)] = &[$(($name, $version)),+];

            fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name),+ }
            }

            fn schema_version(&self) -> u32 {
                match self { $(Self::$variant(_) => $version),+ }
            }

            fn encode(&self) -> Box<::serde_json::value::RawValue> {
                match self { $(Self::$variant(data) => ::kernel::encode(data)),+ }
            }

            fn decode(
                type_name: &str,
                schema_version: u32,
                data: &::serde_json::value::RawValue,
            ) -> Result<Self, ::kernel::FactError> {
                match type_name {
                    $($name => $crate::facts::read(type_name, $version, schema_version, data, $upcast)
                        .map(Self::$variant),)+
                    _ => Err(::kernel::FactError::UnknownType(type_name.to_owned())),
                }
            }
        }

        $(impl From<$variant> for Event {
            fn from(data: $variant) -> Self {
                Self::$variant(data)
            }
        })+
    };
}

#[cfg(test)]
#[allow(unreachable_pub, reason = "the macro's enum is public wherever it stands")]
mod tests {
    use kernel::{EventSet, FactError};
    use serde::{Deserialize, Serialize};
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Paid {
        pub amount_nanos: i64,
        pub currency: String,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Closed {}

    facts! {
        /// A category that has lived: `till.paid` was written in three shapes.
        pub enum Event, upcast upcast;
        Paid = "till.paid", version 3;
        Closed = "till.closed", version 1;
    }

    /// Version 1 had whole units, version 2 nano-units, version 3 has a currency as well.
    fn upcast(type_name: &str, from_version: u32, data: Value) -> Option<Value> {
        match (type_name, from_version) {
            ("till.paid", 1) => Some(json!({ "amount_nanos": data["amount"].as_i64()?.checked_mul(1_000_000_000)? })),
            ("till.paid", 2) => Some(json!({ "amount_nanos": data["amount_nanos"], "currency": "USD" })),
            _ => None,
        }
    }

    fn decode(type_name: &str, version: u32, data: &str) -> Result<Event, FactError> {
        Event::decode(type_name, version, &RawValue::from_string(data.to_owned()).expect("the test's data is JSON"))
    }

    #[test]
    fn every_version_ever_written_reads_as_the_current_one() {
        let paid = Event::from(Paid { amount_nanos: 7_000_000_000, currency: "USD".into() });
        assert_eq!(decode("till.paid", 1, r#"{"amount":7}"#), Ok(paid.clone()));
        assert_eq!(decode("till.paid", 2, r#"{"amount_nanos":7000000000}"#), Ok(paid.clone()));
        assert_eq!(decode("till.paid", 3, r#"{"amount_nanos":7000000000,"currency":"USD","new":1}"#), Ok(paid.clone()));
        assert_eq!(decode("till.paid", 3, paid.encode().get()), Ok(paid));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        assert_eq!(decode("till.robbed", 1, "{}"), Err(FactError::UnknownType("till.robbed".into())));
        let future = FactError::FutureVersion { type_name: "till.closed".into(), found: 2, known: 1 };
        assert_eq!(decode("till.closed", 2, "{}"), Err(future));
        for (version, data) in [(0, "{}"), (1, "{}"), (2, "{}"), (3, "{}"), (3, "null"), (1, "[]")] {
            let read = decode("till.paid", version, data);
            assert!(matches!(read, Err(FactError::Misfit { .. })), "version {version} of {data} was read as {read:?}");
        }
    }
}
