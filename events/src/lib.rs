//! The facts: everything that can have happened, one module per category.
//!
//! Each module lists its events once, with a wire name and a schema version written by hand (the macro `facts!`).
//! The data is a *weak schema*: readers ignore fields they do not know, and a field may be added as long as it is
//! optional. Anything else (a field renamed, split, required) makes a **new version**:
//!
//! 1. change the struct and raise the version in the list;
//! 2. write the step from the version before in the module's `upcast` (JSON in, JSON out);
//! 3. add `golden/<type>.v<new version>.json`. The samples of old versions stay as they are, for ever: the log has such
//!    events, and `tests/golden.rs` proves that they can still be read.
//!
//! Upcasters run in [`EventSet::decode`] and nowhere else, so decisions, projections and debuggers see the same event.
//!
//! **Invariant**: no I/O, no clock, no machine word. This crate is data and nothing but data.

use kernel::{EventSet, FactError};
use serde_json::value::RawValue;

#[macro_use]
mod facts;
pub mod inbox;
pub mod key;
pub mod person;
pub mod run;
pub mod tenant;
pub mod workflow;

/// The events of one category, without their Rust types: for tools that handle all of them alike.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The category, such as `run`.
    pub category: &'static str,
    /// Every wire name with its current schema version.
    pub types: &'static [(&'static str, u32)],
    /// Reads data of any version ever written and writes it in the current one.
    pub modernise: fn(&str, u32, &RawValue) -> Result<Box<RawValue>, FactError>,
}

impl Facts {
    const fn of<E: EventSet>(category: &'static str) -> Self {
        Self {
            category,
            types: E::TYPES,
            modernise: |name, version, data| Ok(E::decode(name, version, data)?.encode()),
        }
    }
}

/// Every category there is.
pub const CATALOGUE: &[Facts] = &[
    Facts::of::<inbox::Event>(inbox::CATEGORY),
    Facts::of::<key::Event>(key::CATEGORY),
    Facts::of::<person::Event>(person::CATEGORY),
    Facts::of::<run::Event>(run::CATEGORY),
    Facts::of::<tenant::Event>(tenant::CATEGORY),
    Facts::of::<workflow::Event>(workflow::CATEGORY),
];
