//! Places in the log, as people and programs outside hold them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A place in the log. Inside it is a sequence number without holes; outside it is an opaque token (`p1-…`), because
/// a log spread over several streams will need a vector here and no caller should have to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

/// The text is not a position that we handed out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a position: pass one back exactly as an answer gave it, such as `p1-2a`")]
pub struct InvalidPosition(pub String);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);

    /// The position of the log's `sequence`-th message, counted from 1.
    #[must_use]
    pub fn at(sequence: u64) -> Self {
        Self(sequence)
    }

    /// The log's own sequence number, for adapters and SQL.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.0
    }

    /// The position right after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p1-{:x}", self.0)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let invalid = || InvalidPosition(text.chars().take(40).collect());
        let digits = text.strip_prefix("p1-").ok_or_else(invalid)?;
        // `from_str_radix` would let a sign through.
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        // No log has more messages than that, and neither NATS nor Postgres could count them.
        let sequence = u64::from_str_radix(digits, 16).ok().filter(|sequence| i64::try_from(*sequence).is_ok());
        sequence.map(Self).ok_or_else(invalid)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One event's place: its commit's position and its index inside that commit. Server-sent events use it as their id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Where the commit stands.
    pub position: Position,
    /// Which of its events, from 0; `u32::MAX` means all of them.
    pub index: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            u32::MAX => write!(f, "{}", self.position),
            index => write!(f, "{}.{index}", self.position),
        }
    }
}

impl FromStr for Cursor {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let invalid = || InvalidPosition(text.chars().take(40).collect());
        // A bare position means the whole commit has been seen.
        let Some((position, index)) = text.split_once('.') else {
            return Ok(Self { position: text.parse()?, index: u32::MAX });
        };
        Ok(Self { position: position.parse()?, index: index.parse().map_err(|_| invalid())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_what_it_wrote_and_refuses_the_rest() {
        for sequence in [0, 1, 42, i64::MAX as u64] {
            let position = Position::at(sequence);
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for bad in ["", "42", "p1-", "p1-+1", "p1--1", "p2-1", "p1-ffffffffffffffff", "p1-1ffffffffffffffff"] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!("p1-2a.3".parse(), Ok(Cursor { position: Position::at(42), index: 3 }));
        assert!("p1-2a.x".parse::<Cursor>().is_err());
    }
}
