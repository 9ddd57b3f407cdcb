//! The key that wraps all others.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::cipher::{KEY_BYTES, Key, random};

/// Wraps the keys of subjects. It lives outside every database, so that no copy of a database can be read by itself. Who
/// loses it loses all personal data.
#[derive(Clone)]
pub struct MasterKey {
    wrapping: Key,
    root: hmac::Key,
}

/// Why a text is no master key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a master key is {KEY_BYTES} random bytes in base64, such as `head -c 32 /dev/urandom | base64` gives")]
pub struct InvalidMasterKey;

impl MasterKey {
    /// Reads the base64 form, blanks around it allowed.
    ///
    /// # Errors
    /// [`InvalidMasterKey`] when it is not 32 bytes of base64.
    pub fn parse(text: &str) -> Result<Self, InvalidMasterKey> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| InvalidMasterKey)?;
        let wrapping = Key::new(&bytes).ok_or(InvalidMasterKey)?;
        Ok(Self { wrapping, root: hmac::Key::new(hmac::HMAC_SHA256, &bytes) })
    }

    /// A new one, in the form that [`MasterKey::parse`] reads.
    #[must_use]
    pub fn generate() -> String {
        STANDARD.encode(random::<KEY_BYTES>())
    }

    /// Wraps a secret that is kept in a database under a name: it can be unwrapped under that name only.
    #[must_use]
    pub fn wrap_secret(&self, name: &str, secret: &[u8]) -> Vec<u8> {
        let nonce = random();
        let mut wrapped = nonce.to_vec();
        wrapped.extend(self.wrapping.seal(nonce, format!("secret {name}").as_bytes(), secret));
        wrapped
    }

    /// What [`MasterKey::wrap_secret`] wrapped; `None`: by another master key, or under another name.
    #[must_use]
    pub fn unwrap_secret(&self, name: &str, wrapped: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = wrapped.split_first_chunk()?;
        self.wrapping.open(*nonce, format!("secret {name}").as_bytes(), sealed)
    }

    /// A key for a purpose, that tells nothing about this one.
    pub(crate) fn derived(&self, purpose: &str) -> hmac::Tag {
        hmac::sign(&self.root, format!("airstream digest 1 {purpose}").as_bytes())
    }

    /// A subject's new key, wrapped.
    pub(crate) fn wrap(&self, subject: &str, key: &[u8; KEY_BYTES]) -> Vec<u8> {
        let nonce = random();
        let mut wrapped = nonce.to_vec();
        wrapped.extend(self.wrapping.seal(nonce, subject.as_bytes(), key));
        wrapped
    }

    /// A subject's key; `None` when it was not wrapped by this one, or not for this subject.
    pub(crate) fn unwrap(&self, subject: &str, wrapped: &[u8]) -> Option<Key> {
        let (nonce, sealed) = wrapped.split_first_chunk()?;
        Key::new(&self.wrapping.open(*nonce, subject.as_bytes(), sealed)?)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}
