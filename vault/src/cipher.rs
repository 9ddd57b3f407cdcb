//! AES-256-GCM (NIST SP 800-38D), as `ring` has it.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

pub(crate) const KEY_BYTES: usize = 32;

/// So many bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The kernel's generator cannot fail once it has been seeded; going on with a key of zeros is no alternative.
    assert!(SystemRandom::new().fill(&mut bytes).is_ok(), "the operating system gives no random bytes");
    bytes
}

/// One key, ready for both what it encrypts and what it derives.
#[derive(Clone)]
pub(crate) struct Key {
    cipher: LessSafeKey,
    nonces: hmac::Key,
}

impl Key {
    /// From exactly 32 bytes. Encryption and nonces get keys of their own: HMAC-SHA256 of a label.
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != KEY_BYTES {
            return None;
        }
        let root = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let derived = |label: &str| hmac::sign(&root, label.as_bytes());
        let cipher = UnboundKey::new(&AES_256_GCM, derived("airstream vault 1 encryption").as_ref()).ok()?;
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, derived("airstream vault 1 nonces").as_ref());
        Some(Self { cipher: LessSafeKey::new(cipher), nonces })
    }

    /// A nonce that follows from context and text: different for different texts, so never used for two of them; the same
    /// for the same, so that a repeat is recognised as one.
    pub(crate) fn nonce(&self, context: &[u8], text: &[u8]) -> [u8; NONCE_LEN] {
        let mut signing = hmac::Context::with_key(&self.nonces);
        signing.update(&(context.len() as u64).to_be_bytes());
        signing.update(context);
        signing.update(text);
        let tag = signing.sign();
        std::array::from_fn(|n| tag.as_ref()[n])
    }

    pub(crate) fn seal(&self, nonce: [u8; NONCE_LEN], context: &[u8], text: &[u8]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        let sealed =
            self.cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut bytes);
        // Only texts beyond 64 GiB are refused.
        assert!(sealed.is_ok(), "AES-256-GCM refuses a text of {} bytes", text.len());
        bytes
    }

    pub(crate) fn open(&self, nonce: [u8; NONCE_LEN], context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.cipher.open_in_place(nonce, Aad::from(context), &mut bytes).ok().map(|text| text.to_vec())
    }
}
