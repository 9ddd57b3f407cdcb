//! The one place that knows what time it is and that makes up ids. Deciders never come here: they are told.

use std::time::SystemTime;

use kernel::Timestamp;

/// Now, to the microsecond: what Postgres can store, so that every copy of a time is equal.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    let now = Timestamp::from(SystemTime::now());
    Timestamp::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}

/// 32 random bits, for names that only have to differ.
#[must_use]
pub fn random() -> u32 {
    uuid::Uuid::now_v7().as_u128() as u32
}

/// A fresh id: UUIDv7 as 32 hexadecimal digits, so ids made later sort later.
#[must_use]
pub fn fresh_id(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::now_v7().simple())
}

/// An id that follows from a text: the same text gives the same id (UUIDv5).
#[must_use]
pub fn derived_id(prefix: &str, from: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, from.as_bytes()).simple())
}
