//! The signatures that our tokens, and those of providers, may have: `ring` behind the library that knows their form.
//!
//! Signing is Ed25519 only. Providers sign with RS256 or ES256; nothing else is verified, and no algorithm with a shared
//! secret exists here, so a public key can never be taken for one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, Ed25519KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use vault::Digester;

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

/// A secret that nobody can guess, 192 bits, with letters before it by which people and scanners recognise it.
pub(crate) fn secret(prefix: &str) -> String {
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random_bytes::<24>()))
}

/// As [`secret`], and the same text gives the same secret: for what may have to be given out a second time. Nobody can guess
/// it without the master key.
pub(crate) fn derived_secret(prefix: &str, digester: &Digester, text: &str) -> String {
    let mut bytes = digester.digest(text.as_bytes());
    bytes.truncate(24);
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// An id that follows from a text, as only we can tell: nobody finds out by trying whose it is.
pub(crate) fn derived_id(prefix: &str, digester: &Digester, text: &str) -> String {
    let digest = digester.digest(text.as_bytes());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}{hex}")
}

/// Bytes that nobody can guess.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The operating system gives random bytes, or nothing here works.
    SystemRandom::new().fill(&mut bytes).expect("random bytes");
    bytes
}

/// Makes the library use these. Any number of times.
pub(crate) fn install() {
    // Whoever came first has installed the same.
    let _ = PROVIDER.install_default();
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    match algorithm {
        Algorithm::EdDSA => {
            let pair = Ed25519KeyPair::from_pkcs8(key.as_bytes()).map_err(|_| ErrorKind::InvalidEddsaKey)?;
            Ok(Box::new(EdSigner(pair)))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

struct EdSigner(Ed25519KeyPair);

impl Signer<Vec<u8>> for EdSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for EdSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let known = matches!(algorithm, Algorithm::EdDSA | Algorithm::RS256 | Algorithm::ES256);
    match known {
        true => Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() })),
        false => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let verified = match (self.algorithm, self.key.kind()) {
            (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            _ => return Err(Error::new()),
        };
        verified.map_err(|_| Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault::MasterKey;

    #[test]
    fn an_id_that_follows_from_a_text_follows_from_the_key_as_well() {
        let digester = || MasterKey::parse(&MasterKey::generate()).expect("a key").digester("derived secret");
        let (ours, theirs) = (digester(), digester());
        let text = "person k ann@example.org";
        let id = derived_id("usr_", &ours, text);
        assert_eq!(id, derived_id("usr_", &ours, text));
        assert_eq!(id.len(), "usr_".len() + 32);
        for other in [derived_id("usr_", &theirs, text), runtime::clock::derived_id("usr_", text)] {
            assert_ne!(id, other, "whoever knows an address finds its person");
        }
        assert_ne!(id, derived_id("usr_", &ours, "person k bob@example.org"));
    }
}
