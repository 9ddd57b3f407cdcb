//! Codes of authenticators (RFC 6238) and recovery codes.
//!
//! SHA-1, six digits, half a minute: what every authenticator understands. In an HMAC, SHA-1 is as good as ever.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::Timestamp;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

/// How long a code is shown, in seconds.
const STEP_SECONDS: i64 = 30;
/// RFC 4226, 4: at least 128 bits, 160 recommended.
const SECRET_BYTES: usize = 20;
/// Recovery codes in a set.
pub(crate) const RECOVERY_CODES: usize = 10;
/// Letters of a recovery code: 50 bits.
const RECOVERY_LETTERS: usize = 10;
/// RFC 4648, 6.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What an authenticator and we know.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// As many random bytes as there is place for.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The operating system gives random bytes, or nothing here works.
    SystemRandom::new().fill(&mut bytes).expect("random bytes");
    bytes
}

impl Secret {
    /// A new one.
    pub(crate) fn generate() -> Self {
        Self(random::<SECRET_BYTES>().to_vec())
    }

    /// As it is sealed.
    pub(crate) fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0)
    }

    /// What [`Secret::to_text`] gave.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok().map(Self)
    }

    /// As people type it into an authenticator.
    pub(crate) fn base32(&self) -> String {
        let mut text = String::new();
        let (mut bits, mut held) = (0_u32, 0);
        for byte in &self.0 {
            (bits, held) = (bits << 8 | u32::from(*byte), held + 8);
            while held >= 5 {
                held -= 5;
                text.push(char::from(BASE32[(bits >> held & 31) as usize]));
            }
        }
        if held > 0 {
            text.push(char::from(BASE32[(bits << (5 - held) & 31) as usize]));
        }
        text
    }

    /// As an authenticator reads it from a picture.
    pub(crate) fn uri(&self, account: &str) -> String {
        let account: String = account.bytes().map(escaped).collect();
        let secret = self.base32();
        format!("otpauth://totp/Airstream:{account}?secret={secret}&issuer=Airstream&algorithm=SHA1&digits=6&period=30")
    }

    /// The code of a step (RFC 4226, 5.3).
    fn code(&self, step: i64) -> u32 {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let at = usize::from(tag[19] & 15);
        let word = u32::from_be_bytes([tag[at], tag[at + 1], tag[at + 2], tag[at + 3]]);
        (word & 0x7fff_ffff) % 1_000_000
    }

    /// The step whose code this is: the one of now, or a neighbour of it, for clocks differ and people type slowly.
    pub(crate) fn step_of(&self, code: &str, now: Timestamp) -> Option<i64> {
        let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        if digits.len() != 6 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let typed: u32 = digits.parse().ok()?;
        let step = now.timestamp().div_euclid(STEP_SECONDS);
        [step, step - 1, step + 1].into_iter().find(|step| self.code(*step) == typed)
    }
}

/// RFC 3986, 2.1: everything but what never means anything.
fn escaped(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}

/// A set of recovery codes, such as `k7mqa-x2bfe`.
pub(crate) fn recovery_codes() -> Vec<String> {
    let code = || {
        let letters = random::<RECOVERY_LETTERS>().map(|byte| BASE32[usize::from(byte % 32)].to_ascii_lowercase());
        let (first, second) = letters.split_at(RECOVERY_LETTERS / 2);
        format!("{}-{}", String::from_utf8_lossy(first), String::from_utf8_lossy(second))
    };
    (0..RECOVERY_CODES).map(|_| code()).collect()
}

/// The one form of a recovery code, however it is typed; `None`: it cannot be one.
pub(crate) fn recovery_code(text: &str) -> Option<String> {
    let letters: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let plain = letters.len() == RECOVERY_LETTERS && letters.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| letters.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).expect("a time")
    }

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238, appendix B; the last six of its eight digits.
        let secret = Secret(b"12345678901234567890".to_vec());
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(secret.step_of(code, at(seconds)), Some(seconds / 30), "{seconds}");
        }
        assert_eq!(secret.base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    }

    #[test]
    fn letters_are_those_of_the_standard() {
        // RFC 4648, 10, without padding.
        for (bytes, text) in [("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foob", "MZXW6YQ"), ("fooba", "MZXW6YTB")]
        {
            assert_eq!(Secret(bytes.into()).base32(), text);
        }
    }

    #[test]
    fn a_code_counts_a_step_earlier_and_later_and_no_longer() {
        let secret = Secret(b"12345678901234567890".to_vec());
        let (code, step) = ("081804", 1_111_111_109 / 30);
        for (away, counts) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let found = secret.step_of(code, at((step + away) * 30));
            assert_eq!(found, counts.then_some(step), "{away} steps away");
        }
        assert!(secret.step_of(" 081 804 ", at(step * 30)).is_some(), "as authenticators show it");
        for wrong in ["", "81804", "0818040", "08180a", "081805", "+81804", "０８１８０４"] {
            assert_eq!(secret.step_of(wrong, at(step * 30)), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_authenticator_reads_whose_account_it_is() {
        let secret = Secret(b"12345678901234567890".to_vec());
        let expected = "otpauth://totp/Airstream:ann%2Bx%40example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
                        &issuer=Airstream&algorithm=SHA1&digits=6&period=30";
        assert_eq!(secret.uri("ann+x@example.org"), expected);
        assert_eq!(Secret::from_text(&secret.to_text()), Some(secret.clone()));
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        assert_ne!(Secret::generate(), Secret::generate());
        assert_eq!(Secret::generate().0.len(), SECRET_BYTES);
    }

    #[test]
    fn a_recovery_code_is_the_same_however_it_is_typed() {
        let codes = recovery_codes();
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), RECOVERY_CODES);
        for code in &codes {
            let typed = format!(" {} ", code.to_uppercase().replace('-', " "));
            assert_eq!(recovery_code(&typed), recovery_code(code));
            assert!(recovery_code(code).is_some_and(|code| code.len() == RECOVERY_LETTERS));
        }
        for wrong in ["", "abcde", "abcde-fghi!", "abcde-fghij-k", "äbcde-fghi"] {
            assert_eq!(recovery_code(wrong), None, "{wrong:?}");
        }
    }
}
