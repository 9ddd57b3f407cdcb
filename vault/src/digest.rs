//! Keyed hashes: to find what must not be readable, and to recognise what we gave out.

use ring::hmac;

use crate::MasterKey;

/// HMAC-SHA256 under a key for one purpose. Without the master key, nobody can try out which address a hash belongs to.
#[derive(Clone)]
pub struct Digester(hmac::Key);

impl MasterKey {
    /// A digester of its own for a purpose; hashes of one say nothing to another.
    #[must_use]
    pub fn digester(&self, purpose: &str) -> Digester {
        Digester(hmac::Key::new(hmac::HMAC_SHA256, self.derived(purpose).as_ref()))
    }
}

impl Digester {
    /// The hash of a text, 32 bytes.
    #[must_use]
    pub fn digest(&self, text: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0, text).as_ref().to_vec()
    }

    /// Whether this is the hash of the text, or its beginning of at least 16 bytes. Takes as long whichever byte is wrong.
    #[must_use]
    pub fn verify(&self, text: &[u8], digest: &[u8]) -> bool {
        let whole = hmac::sign(&self.0, text);
        let same = whole.as_ref().iter().zip(digest).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0;
        (16..=32).contains(&digest.len()) && same
    }
}

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digester(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_says_nothing_without_the_key_and_the_purpose() {
        let master = MasterKey::parse(&MasterKey::generate()).expect("a key");
        let other = MasterKey::parse(&MasterKey::generate()).expect("a key");
        let emails = master.digester("email");
        let digest = emails.digest(b"ann@example.org");
        assert_eq!(digest, master.digester("email").digest(b"ann@example.org"));
        assert_ne!(digest, master.digester("username").digest(b"ann@example.org"));
        assert_ne!(digest, other.digester("email").digest(b"ann@example.org"));
        assert!(emails.verify(b"ann@example.org", &digest));
        assert!(emails.verify(b"ann@example.org", &digest[..16]));
        assert!(!emails.verify(b"ann@example.org", &digest[..15]), "too short to prove anything");
        assert!(!emails.verify(b"bob@example.org", &digest));
        assert!(!emails.verify(b"ann@example.org", &[digest.as_slice(), b"x"].concat()));
        assert_eq!(format!("{emails:?}"), "Digester(***)");
    }
}
