//! Names that become subject tokens. A token is validated once, where it enters; from then on its type says so.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How many shards a log has. Sixteen is fixed for the life of a log: the shard is part of every subject, so changing
/// the number would move streams away from their own history.
pub const SHARDS: u8 = 16;

/// Longest token, in bytes. Five tokens and a prefix stay far below the server's limit for a subject.
const MAX_TOKEN_BYTES: usize = 96;

/// Why a text is not a usable name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{text}` is not usable: {rule}")]
pub struct InvalidName {
    /// Which name was being read, in the reader's words.
    pub what: &'static str,
    /// The offending text, cut to a printable length.
    pub text: String,
    /// What is allowed.
    pub rule: &'static str,
}

/// One subject token: 1 to 96 characters of `A-Z a-z 0-9 _ -`. Dots, blanks and the wildcards `*` and `>` would change
/// the meaning of the subject it becomes part of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Token(Arc<str>);

impl Token {
    /// Checks a text; `what` names it in the error.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty, too long, or has a character that is not allowed.
    pub fn parse(what: &'static str, text: &str) -> Result<Self, InvalidName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if text.is_empty() || text.len() > MAX_TOKEN_BYTES || !text.bytes().all(allowed) {
            let text = text.chars().filter(|c| !c.is_control()).take(64).collect();
            let rule = "use 1 to 96 of the characters A-Z a-z 0-9 _ -, and no dots, spaces or wildcards";
            return Err(InvalidName { what, text, rule });
        }
        Ok(Self(text.into()))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Token);

        impl $name {
            /// Checks a text.
            ///
            /// # Errors
            /// [`InvalidName`] when it cannot be a subject token.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                Token::parse($what, text).map(Self)
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// A tenant: the owner of streams, rows and quotas. Nothing ever crosses from one to another.
    TenantId,
    "the tenant"
);
name!(
    /// Who asks: a person, a key or a part of the platform. Stamped by the door, never believed from a body.
    PrincipalId,
    "the principal"
);
name!(
    /// The kind of a stream, such as `workflow`. One [`Decider`](crate::Decider) serves one category.
    Category,
    "the category"
);
name!(
    /// Which stream of its category.
    StreamId,
    "the stream id"
);

impl PrincipalId {
    /// The platform itself: reactors and processes speak in this name. No door stamps it.
    #[must_use]
    pub fn system() -> Self {
        Self(Token("airstream".into()))
    }
}

/// The full name of a stream: whose, what kind, which one. Written `tenant/category/id`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName {
    /// Whose stream.
    pub tenant: TenantId,
    /// What kind of stream.
    pub category: Category,
    /// Which one.
    pub id: StreamId,
}

impl StreamName {
    /// Builds a name from three texts.
    ///
    /// # Errors
    /// [`InvalidName`] for the first one that cannot be a subject token.
    pub fn new(tenant: &str, category: &str, id: &str) -> Result<Self, InvalidName> {
        Ok(Self { tenant: TenantId::new(tenant)?, category: Category::new(category)?, id: StreamId::new(id)? })
    }

    /// The shard this stream lives in, for ever: FNV-1a (64 bit, offset basis `cbf29ce484222325`, prime `100000001b3`)
    /// over `tenant/category/id` as UTF-8, modulo [`SHARDS`]. Any language can compute it in five lines.
    #[must_use]
    pub fn shard(&self) -> u8 {
        const PRIME: u64 = 0x0100_0000_01b3;
        let parts = [self.tenant.as_str(), "/", self.category.as_str(), "/", self.id.as_str()];
        let bytes = parts.iter().flat_map(|part| part.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        (hash % u64::from(SHARDS)) as u8
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.category, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_refuses_everything_that_means_something_in_a_subject() {
        for bad in ["", "a.b", "*", ">", "a b", "ä", "a\n", &"x".repeat(97)] {
            assert!(TenantId::new(bad).is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "wf_12345", "run-1", &"x".repeat(96)] {
            assert!(TenantId::new(good).is_ok(), "{good:?} was refused");
        }
    }

    /// These figures are part of the log's format: if this test has to change, every existing log is orphaned.
    #[test]
    fn the_shard_of_a_stream_never_changes() {
        let shard = |id: &str| StreamName::new("dev", "workflow", id).map(|name| name.shard());
        assert_eq!(shard("wf_12345"), Ok(12));
        assert_eq!(shard("a"), Ok(8));
        assert_eq!(shard("b"), Ok(1));
    }

    #[test]
    fn shards_are_evenly_used() {
        let mut used = [0_u32; SHARDS as usize];
        for n in 0..16_000 {
            let name = StreamName::new("t", "c", &format!("id-{n}")).expect("a valid name");
            used[usize::from(name.shard())] += 1;
        }
        assert!(used.iter().all(|count| (800..1_200).contains(count)), "{used:?}");
    }
}
