//! Commands: what somebody wants to happen, before anything has decided whether it will.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{InvalidName, PrincipalId, Problem, StreamName, Timestamp, storable};

/// The idempotency key of one command on one stream, for ever. It becomes the commit's id.
///
/// 1 to 128 printable ASCII characters without blanks: people use order numbers, UUIDs and e-mail message ids here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CommandId(Arc<str>);

impl CommandId {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty, over 128 bytes, or has a blank, a control or a non-ASCII character.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if !storable::is_word(text) {
            let text = text.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(InvalidName { what: "the command id", text, rule: storable::WORD });
        }
        Ok(Self(text.into()))
    }

    /// Checks a text that somebody outside has chosen: the platform's own commands must not find their ids taken.
    ///
    /// # Errors
    /// [`InvalidName`] as [`CommandId::new`], and when it begins with [`CommandId::RESERVED`].
    pub fn chosen(text: &str) -> Result<Self, InvalidName> {
        let id = Self::new(text)?;
        match text.starts_with(Self::RESERVED) {
            true => {
                let rule = "ids that begin with `airstream.` are the platform's own";
                Err(InvalidName { what: "the command id", text: text.chars().take(64).collect(), rule })
            }
            false => Ok(id),
        }
    }

    /// How an id of the platform's own begins where it can be foretold.
    pub const RESERVED: &str = "airstream.";

    /// The id of a command of the platform's own: the same name gives the same id, and nobody outside can have used it.
    ///
    /// # Errors
    /// [`InvalidName`] as [`CommandId::new`].
    pub fn reserved(name: &str) -> Result<Self, InvalidName> {
        Self::new(&format!("{}{name}", Self::RESERVED))
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CommandId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for CommandId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// A short digest of what was asked, kept with the commit: the same command id with another body is a mistake that the
/// caller should hear about. 16 hexadecimal digits of SHA-256 over the command's name and its body as canonical JSON
/// (object keys sorted, no blanks).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Digests a command. A body that is not JSON is digested as it stands.
    #[must_use]
    pub fn of(command: &str, body: &[u8]) -> Self {
        Self::of_parsed(command, body, serde_json::from_slice(body).ok().as_ref())
    }

    /// Digests a command whose body has been read already; `None` when it is not JSON.
    #[must_use]
    pub fn of_parsed(command: &str, body: &[u8], value: Option<&serde_json::Value>) -> Self {
        let mut hash = Sha256::new();
        hash.update(command.as_bytes());
        hash.update([0]);
        match value {
            Some(value) => hash.update(crate::canonical(value).as_bytes()),
            None => hash.update(body),
        }
        Self(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a door stamps on every command. Time and ids reach a decision only this way.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// When the platform took the command.
    pub at: Timestamp,
    /// Which command.
    pub id: CommandId,
    /// The stream it addresses.
    pub stream: StreamName,
    /// Who asks.
    pub principal: PrincipalId,
}

/// Who may send a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody whom a door lets in.
    Public,
    /// Reactors and processes of the platform only: what they report must not be forged.
    Internal,
}

/// A command as the doors know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandSpec {
    /// Wire name: imperative, kebab-case, such as `complete-step`.
    pub name: &'static str,
    /// Who may send it.
    pub access: Access,
    /// One sentence for people: lists and the bus reference show it.
    pub about: &'static str,
}

/// The commands of one category, as they arrive from outside.
pub trait CommandSet: Sized + Clone + Send + Sync + fmt::Debug + 'static {
    /// Every command there is.
    const SPECS: &'static [CommandSpec];

    /// Reads a command from its wire name and its body.
    ///
    /// # Errors
    /// A [`Problem`] that says what is wrong with the body. The name has been checked against `SPECS` before.
    fn parse(name: &str, body: &[u8], stamp: &Stamp) -> Result<Self, Problem>;
}

/// Reads a command's body as a JSON object; an empty body counts as `{}`.
///
/// # Errors
/// 400 `malformed` when it is not JSON, 422 `invalid` when it is JSON of another shape.
pub fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    // A list of a struct's fields in their order would be read as one, too. Nobody means that.
    if body.trim_ascii().starts_with(b"[") {
        return Err(Problem::new(422, "invalid", "The body is a list; it has to be an object."));
    }
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Problem::new(422, "invalid", format!("The body does not fit: {error}.")),
        _ => Problem::malformed(format!("The body is not valid JSON: {error}.")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_ignores_key_order_and_blanks_but_nothing_else() {
        let base = Fingerprint::of("start", br#"{"a":1,"b":[2,3]}"#);
        assert_eq!(base, Fingerprint::of("start", br#" { "b": [2, 3], "a": 1 } "#));
        assert_ne!(base, Fingerprint::of("stop", br#"{"a":1,"b":[2,3]}"#));
        assert_ne!(base, Fingerprint::of("start", br#"{"a":1,"b":[3,2]}"#));
        assert_eq!(base.as_str().len(), 16);
    }

    #[test]
    fn a_command_id_is_any_key_people_use_but_never_blank_or_endless() {
        for good in ["1", "018f-uuid", "order:42/a", "<msg@id>"] {
            assert!(CommandId::new(good).is_ok(), "{good:?} was refused");
        }
        for bad in ["", "a b", "a\nb", "ü", &"x".repeat(129)] {
            assert!(CommandId::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn nobody_outside_chooses_an_id_of_the_platform() {
        let ours = CommandId::reserved("owner-left.key_1").expect("an id");
        assert_eq!(CommandId::new(ours.as_str()), Ok(ours.clone()), "what is stored is read again");
        assert!(CommandId::chosen(ours.as_str()).is_err());
        assert_eq!(CommandId::chosen("key_1.owner-left").expect("an id").as_str(), "key_1.owner-left");
        assert!(CommandId::chosen("a b").is_err());
    }
}
