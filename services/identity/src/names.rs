//! What people log in by: addresses and usernames, each with a normal form in which two of them are the same or not.

use std::fmt;

/// Why a text is no address or username; a sentence for whoever typed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// An e-mail address.
///
/// It is compared without regard to case, and its domain in its ASCII form. Dots and plus signs are left alone: what they mean
/// is the receiving server's affair, and guessing it would make one account of two people.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    typed: String,
    normal: String,
}

/// Longest address, in bytes (RFC 5321, 4.5.3.1.3).
const MAX_EMAIL_BYTES: usize = 254;
/// Longest part before the `@` (RFC 5321, 4.5.3.1.1).
const MAX_LOCAL_BYTES: usize = 64;

impl Email {
    /// Reads an address as people type it, blanks around it allowed. Quoted local parts and addresses of hosts by number are
    /// valid mail addresses that nobody has; they are refused.
    ///
    /// # Errors
    /// [`Invalid`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const NOT_ONE: Invalid = Invalid("This is not an e-mail address: write it as `name@example.org`.");
        let typed = text.trim();
        let (local, domain) = typed.rsplit_once('@').ok_or(NOT_ONE)?;
        if local.is_empty() || domain.is_empty() {
            return Err(NOT_ONE);
        }
        let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
        if dots || !local.bytes().all(is_atext_or_dot) {
            return Err(Invalid(
                "The part before the `@` may have ASCII letters, digits, single dots and `!#$%&'*+-/=?^_`{|}~`.",
            ));
        }
        let domain =
            idna::domain_to_ascii_strict(domain).map_err(|_| Invalid("The part after the `@` is not a domain."))?;
        let last = domain.rsplit('.').next().unwrap_or_default();
        if !domain.contains('.') || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Invalid("The part after the `@` is not a domain, such as `example.org`."));
        }
        let normal = format!("{}@{domain}", local.to_ascii_lowercase());
        if local.len() > MAX_LOCAL_BYTES || normal.len() > MAX_EMAIL_BYTES || typed.len() > MAX_EMAIL_BYTES {
            return Err(Invalid("The address is too long: 64 characters before the `@`, 254 altogether."));
        }
        Ok(Self { typed: typed.to_owned(), normal })
    }

    /// As it was typed: what mail is sent to.
    #[must_use]
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// The form in which it is reserved and found.
    #[must_use]
    pub fn normal(&self) -> &str {
        &self.normal
    }
}

/// `atext` of RFC 5322 and the dot.
fn is_atext_or_dot(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// Addresses are personal data: not even a debug print shows one.
impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(***)")
    }
}

/// A name to log in by, instead of the address.
///
/// ASCII only: of letters that look alike, only one set exists. It never contains an `@`, so no username is somebody's address.
#[derive(Clone, PartialEq, Eq)]
pub struct Username {
    typed: String,
    normal: String,
}

impl Username {
    /// Reads a username, blanks around it allowed.
    ///
    /// # Errors
    /// [`Invalid`] with the rule.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const RULE: Invalid = Invalid(
            "A username has 3 to 32 characters: ASCII letters, digits, and single `.`, `-` or `_` between them.",
        );
        let typed = text.trim();
        let bytes = typed.as_bytes();
        let inside = |byte: u8| b".-_".contains(&byte);
        let fits = (3..=32).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || inside(*byte))
            && !bytes.windows(2).any(|two| inside(two[0]) && inside(two[1]))
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric);
        if !fits {
            return Err(RULE);
        }
        Ok(Self { typed: typed.to_owned(), normal: typed.to_ascii_lowercase() })
    }

    /// As it was typed.
    #[must_use]
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// The form in which it is reserved and found.
    #[must_use]
    pub fn normal(&self) -> &str {
        &self.normal
    }
}

impl fmt::Debug for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Username(***)")
    }
}

/// What somebody typed to log in: either of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// It has an `@`.
    Email(Email),
    /// It has none.
    Username(Username),
}

impl Login {
    /// Reads either.
    ///
    /// # Errors
    /// [`Invalid`] when it is neither.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.contains('@') { Email::parse(text).map(Self::Email) } else { Username::parse(text).map(Self::Username) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_address_has_one_normal_form() {
        for (typed, normal) in [
            ("ann@example.org", "ann@example.org"),
            ("  Ann.Bee+Tag@Example.ORG ", "ann.bee+tag@example.org"),
            ("o'hara@mail.example.co.uk", "o'hara@mail.example.co.uk"),
            ("info@Bücher.example", "info@xn--bcher-kva.example"),
            ("info@xn--bcher-kva.example", "info@xn--bcher-kva.example"),
        ] {
            let email = Email::parse(typed).expect(typed);
            assert_eq!((email.normal(), email.typed()), (normal, typed.trim()));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        let longer = format!("a@{}.org", vec!["b".repeat(60); 5].join("."));
        for text in [
            "",
            "@",
            "ann",
            "ann@",
            "@example.org",
            "ann@localhost",
            "ann@127.0.0.1",
            "ann@[::1]",
            "a b@example.org",
            "ann@exam ple.org",
            "ann@-example.org",
            "ann..bee@example.org",
            ".ann@example.org",
            "ann.@example.org",
            "\"ann\"@example.org",
            "ann@example.org\nBcc: eve@example.org",
            "ann\u{0}@example.org",
            "ann@example..org",
            "аnn@example.org",
            "ann@exa_mple.org",
            "ann@eve@example.org",
            "ann@\u{202e}example.org",
            &long,
            &longer,
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn usernames_that_look_alike_are_the_same_or_refused() {
        let normal = |text: &str| Username::parse(text).map(|name| name.normal().to_owned());
        assert_eq!(normal("Ann_Bee.2"), Ok("ann_bee.2".to_owned()));
        assert_eq!(normal("ANN_bee.2"), normal("ann_BEE.2"));
        let long = "a".repeat(33);
        for text in [
            "",
            "ab",
            "a..b",
            "a._b",
            ".ann",
            "ann-",
            "ann bee",
            "ann@bee",
            "аnn",
            "ａｎｎ",
            "ann\u{200b}",
            "ann\u{0}",
            "änn",
            "ann\u{301}",
            "İan",
            &long,
        ] {
            assert!(Username::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_login_is_one_or_the_other() {
        assert!(matches!(Login::parse("ann@example.org"), Ok(Login::Email(_))));
        assert!(matches!(Login::parse("ann"), Ok(Login::Username(_))));
        assert!(Login::parse("ann@").is_err());
        assert_eq!(format!("{:?}", Login::parse("ann@example.org").expect("an address")), "Email(Email(***))");
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own_normal_form(text in any::<String>(), simple in "[a-zA-Z0-9._+-]{1,12}@[a-zA-Z0-9.-]{1,12}") {
            for text in [text, simple] {
                if let Ok(email) = Email::parse(&text) {
                    let again = Email::parse(email.normal());
                    prop_assert_eq!(again.as_ref().map(Email::normal), Ok(email.normal()));
                }
                if let Ok(name) = Username::parse(&text) {
                    let again = Username::parse(name.normal());
                    prop_assert_eq!(again.as_ref().map(Username::normal), Ok(name.normal()));
                }
            }
        }
    }
}
