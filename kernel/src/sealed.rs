//! Personal data as events and rows carry it: encrypted with a key of the person it is about.

use serde::{Deserialize, Serialize};

/// A text that only the holder of its subject's key can read. When that key is destroyed, nobody can, in no copy of the log
/// and no backup of it.
///
/// AES-256-GCM (NIST SP 800-38D). The nonce follows from key, context and text, so the same text in the same place is the same
/// value: a command that is sent again is the same command. What is sealed is bound to its context (the subject and the name
/// of the field) and cannot be moved to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sealed {
    /// Version of this form: 1.
    pub v: u8,
    /// Whose key: the data subject, such as `usr_…`.
    pub sub: String,
    /// 12 bytes, base64url without padding.
    pub nonce: String,
    /// The text and the tag of 16 bytes after it, base64url without padding.
    pub ct: String,
}
