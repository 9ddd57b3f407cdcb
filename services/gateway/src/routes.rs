//! Routes of the platform itself; services bring their own.

pub(crate) mod commands;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod instances;
pub(crate) mod operations;
pub(crate) mod parked;
