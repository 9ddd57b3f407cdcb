//! Who somebody is, and what they may do: people ([`person`]), the tenants that they own data in together ([`tenant`]), and
//! the keys of their programs ([`key`]).
//!
//! What happened is events; what changes hands quickly (passwords, codes, sessions, tokens) is state under locks in Postgres
//! and is never decided from a view that may lag.

pub mod access;
pub mod accounts;
pub mod api_key;
pub mod caretaker;
mod crypto;
pub mod follow;
pub mod keeper;
pub mod key;
pub mod names;
pub mod oauth;
mod otp;
pub mod password;
pub mod person;
pub mod privacy;
mod recent;
pub mod refresh;
pub mod routes;
pub mod signing;
pub mod tenant;
pub mod token;
pub mod uses;
