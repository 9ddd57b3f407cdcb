//! What the secret of an API key looks like: `ask_`, 43 characters of random, 6 of checksum.
//!
//! ```text
//! ask_  4fQ7…(32 bytes in base62)  0aB3xY (CRC-32 of what stands before, in base62)
//! ```
//!
//! By the letters before it scanners recognise a secret that leaked; by the checksum they, and we, know without asking anybody
//! that a text is none.

use std::fmt;

const PREFIX: &str = "ask_";
const BODY_CHARS: usize = 43;
const CHECK_CHARS: usize = 6;
/// Of the body, shown to people so that they recognise a key: 47 bits of 256.
const SHOWN_CHARS: usize = 8;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiSecret(String);

impl ApiSecret {
    /// Out of 32 bytes that nobody can guess.
    #[must_use]
    pub fn of(bytes: &[u8; 32]) -> Self {
        let body = base62(bytes, BODY_CHARS);
        let check = checksum(&body);
        Self(format!("{PREFIX}{body}{check}"))
    }

    /// Reads a text that may be one; `None`: it cannot be.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        let (body, check) = rest.split_at_checked(BODY_CHARS)?;
        (check.len() == CHECK_CHARS && checksum(body) == check).then(|| Self(text.to_owned()))
    }

    /// Whether a token claims to be one.
    #[must_use]
    pub fn claims(token: &str) -> bool {
        token.starts_with(PREFIX)
    }

    /// What may be shown of it.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0.get(..PREFIX.len() + SHOWN_CHARS).unwrap_or(PREFIX)
    }

    /// The whole of it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiSecret({}…)", self.prefix())
    }
}

/// A number, the most significant byte first, in so many digits.
fn base62(bytes: &[u8], digits: usize) -> String {
    let mut number = bytes.to_vec();
    let mut text = vec![b'0'; digits];
    for place in text.iter_mut().rev() {
        let mut rest = 0_usize;
        for byte in &mut number {
            let value = rest * 256 + usize::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *place = DIGITS[rest];
    }
    text.into_iter().map(char::from).collect()
}

fn checksum(body: &str) -> String {
    base62(&crc32(body.as_bytes()).to_be_bytes(), CHECK_CHARS)
}

/// CRC-32 as in ISO 3309: what others who check such tokens use.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_one_that_everybody_knows() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(base62(&[0, 62], 3), "010");
        let zero = ApiSecret::of(&[0; 32]);
        assert!(zero.reveal().starts_with("ask_0000"), "{zero:?}");
        assert_eq!((zero.prefix(), format!("{zero:?}").as_str()), ("ask_00000000", "ApiSecret(ask_00000000…)"));
    }

    #[test]
    fn what_cannot_be_a_secret_is_none() {
        let text = ApiSecret::of(&[7; 32]).reveal().to_owned();
        let changed = format!("ask_ä{}", &text[6..]);
        for bad in ["", "ask_", "ask", &text[1..], &text[..text.len() - 1], &format!("{text}0"), &changed] {
            assert_eq!(ApiSecret::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn different_bytes_are_different_secrets_and_no_digit_can_be_changed(
            bytes in any::<[u8; 32]>(), other in any::<[u8; 32]>(), at in 4..53_usize, to in 0..62_usize,
        ) {
            let secret = ApiSecret::of(&bytes);
            prop_assert_eq!(secret.reveal().len(), 53);
            prop_assert_eq!(ApiSecret::parse(secret.reveal()), Some(secret.clone()));
            prop_assert_eq!(bytes == other, secret == ApiSecret::of(&other));
            let mut text = secret.reveal().as_bytes().to_vec();
            let changed = text[at] != DIGITS[to];
            text[at] = DIGITS[to];
            let text = String::from_utf8(text).expect("ASCII");
            prop_assert_eq!(ApiSecret::parse(&text).is_none(), changed);
        }
    }
}
