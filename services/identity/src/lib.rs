//! Who somebody is, and what they may do: people ([`person`]), the tenants that they own data in together ([`tenant`]), and
//! the keys of their programs ([`key`]).
//!
//! What happened is events; what changes hands quickly (passwords, codes, sessions, tokens) is state under locks in Postgres
//! and is never decided from a view that may lag.

mod crypto;
pub mod key;
pub mod names;
pub mod password;
pub mod person;
pub mod refresh;
pub mod tenant;
pub mod token;
