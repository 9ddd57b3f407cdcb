//! Facts: what an event's data must be able to do, whatever it says.

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

/// The events of one category: a closed set with hand-written wire names and a schema version each.
pub trait EventSet: Sized + Clone + fmt::Debug + Send + Sync + 'static {
    /// Every wire name with its current schema version.
    const TYPES: &'static [(&'static str, u32)];

    /// The wire name of this event, such as `run.started`.
    fn type_name(&self) -> &'static str;

    /// The schema version it is written with.
    fn schema_version(&self) -> u32;

    /// Its data as JSON.
    fn encode(&self) -> Box<RawValue>;

    /// Reads an event of any version ever written. The one choke point: upcasters run here and nowhere else, so replay,
    /// projections and debuggers all see the same event.
    ///
    /// # Errors
    /// [`FactError`] when the type is unknown here, the version is from the future, or the data does not fit.
    fn decode(type_name: &str, schema_version: u32, data: &RawValue) -> Result<Self, FactError>;
}

/// Why stored data could not be read as an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactError {
    /// Nobody here knows this type.
    #[error("no event type `{0}` is known here")]
    UnknownType(String),
    /// Written by a newer program.
    #[error("`{type_name}` has schema version {found}, this program reads up to {known}")]
    FutureVersion {
        /// The event's type.
        type_name: String,
        /// Version in the log.
        found: u32,
        /// Newest version this program reads.
        known: u32,
    },
    /// The data has another shape.
    #[error("the data of `{type_name}` does not fit: {reason}")]
    Misfit {
        /// The event's type.
        type_name: String,
        /// What the reader said.
        reason: String,
    },
}

/// Encodes event data.
///
/// # Panics
/// When a type of ours cannot be written as JSON, which is a defect: maps with non-string keys are the only way there.
#[must_use]
pub fn encode<T: Serialize>(data: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(data).expect("event data is plain JSON")
}
