//! Refresh tokens: `art_` and 41 bytes in base64url.
//!
//! ```text
//! 1        16         8          16
//! version  session    counter    HMAC-SHA256 of what stands before, its first half
//! ```
//!
//! The token names its session and its place in the family, so no row is kept per token; the signature keeps anybody from
//! making one up. The letters before it are for scanners that look for leaked secrets.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use vault::{Digester, MasterKey};

const PREFIX: &str = "art_";
const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 1 + 16 + 8;
const SIGNATURE_BYTES: usize = 16;

/// What a refresh token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// The session, as `ses_…`.
    pub session: String,
    /// Which token of the session it is.
    pub counter: i64,
}

/// Signs and reads refresh tokens.
#[derive(Debug, Clone)]
pub struct RefreshTokens(Digester);

impl RefreshTokens {
    /// Under a key of their own.
    #[must_use]
    pub fn new(master: &MasterKey) -> Self {
        Self(master.digester("refresh token"))
    }

    /// A token for a session; `None` when that is not the id of one.
    #[must_use]
    pub fn sign(&self, token: &RefreshToken) -> Option<String> {
        let session = u128::from_str_radix(token.session.strip_prefix("ses_")?, 16).ok()?;
        let mut bytes = vec![VERSION];
        bytes.extend(session.to_be_bytes());
        bytes.extend(token.counter.to_be_bytes());
        let signature = self.0.digest(&bytes);
        bytes.extend(signature.get(..SIGNATURE_BYTES)?);
        Some(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Reads a token that we have signed; `None` for everything else.
    #[must_use]
    pub fn read(&self, text: &str) -> Option<RefreshToken> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (signed, signature) = bytes.split_at_checked(SIGNED_BYTES)?;
        if signature.len() != SIGNATURE_BYTES || !self.0.verify(signed, signature) || signed.first() != Some(&VERSION) {
            return None;
        }
        let session = u128::from_be_bytes(signed.get(1..17)?.try_into().ok()?);
        let counter = i64::from_be_bytes(signed.get(17..)?.try_into().ok()?);
        Some(RefreshToken { session: format!("ses_{session:032x}"), counter })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens() -> RefreshTokens {
        RefreshTokens::new(&MasterKey::parse(&MasterKey::generate()).expect("a key"))
    }

    #[test]
    fn only_what_we_signed_is_read() {
        let tokens = tokens();
        let token = RefreshToken { session: "ses_01936a1b2c3d7e4f8a9b0c1d2e3f4a5b".into(), counter: 7 };
        let text = tokens.sign(&token).expect("a session");
        assert!(text.starts_with("art_") && text.len() == 4 + 55, "{text}");
        assert_eq!(tokens.read(&text), Some(token.clone()));
        assert_eq!(super::tests::tokens().read(&text), None, "another master key");
        for bad in ["", "art_", "art_AQ", &text[4..], &format!("{text}A"), &format!(" {text}"), &text[..text.len() - 1]]
        {
            assert_eq!(tokens.read(bad), None, "{bad:?}");
        }
        assert_eq!(tokens.sign(&RefreshToken { session: "run_1".into(), ..token }), None);
    }

    proptest! {
        #[test]
        fn no_bit_can_be_changed(session in any::<u128>(), counter in any::<i64>(), at in 0..41_usize, bit in 0..8_u8) {
            let tokens = tokens();
            let token = RefreshToken { session: format!("ses_{session:032x}"), counter };
            let text = tokens.sign(&token).expect("a session");
            prop_assert_eq!(tokens.read(&text), Some(token));
            let mut bytes = URL_SAFE_NO_PAD.decode(&text[4..]).expect("base64");
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(tokens.read(&format!("art_{}", URL_SAFE_NO_PAD.encode(bytes))), None);
        }
    }
}
