//! Personal data under a key of the person it is about. Destroying the key erases the person: from rows, from the log, from
//! replays and from every copy of the log.
//!
//! ```text
//! master key (a file, never in a database)
//!   └─ wraps the key of a subject (a row; destroyed on erasure)
//!        └─ seals texts (in events and rows, for ever)
//! ```
//!
//! **Invariant**: a key leaves this crate wrapped or not at all, and nothing here prints one.

mod cipher;
pub mod contract;
mod digest;
mod keyring;
mod master;
mod vault;

pub use digest::Digester;
pub use keyring::{Keyring, KeyringError, MemoryKeyring};
pub use master::{InvalidMasterKey, MasterKey};
pub use vault::{Opened, Vault, VaultError};
