//! Mails leave the house here. Whoever has something to say puts it into the outbox (`projections::mail`); one instance at a
//! time takes it from there and hands it to a mail server, at least once, under a Message-ID that is the same each time. On a
//! development stack it goes into a folder instead, and a page shows what came.

mod carrier;
mod drain;
mod mailbox;
mod message;
mod page;
mod smtp;

pub use carrier::{Carrier, Unsent};
pub use drain::{LEASE, run};
pub use mailbox::Mailbox;
pub use message::Sender;
pub use page::router;
pub use smtp::{Server, Smtp};
