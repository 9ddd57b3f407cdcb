//! Identity's state: what is decided under row locks rather than folded from the log.

mod keys;

pub use keys::PgKeyring;
pub(crate) use keys::{DESTROY, GET, GET_OR_KEEP};
