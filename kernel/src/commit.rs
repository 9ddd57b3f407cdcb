//! The envelope. One message of the log is one commit: the events that one command decided on one stream, as a
//! CloudEvents 1.0 JSON batch. Any CloudEvents library reads it.

mod plain;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{CommandId, EventSet, FactError, PrincipalId, StreamName, Timestamp};

/// Content type of a commit (CloudEvents 1.0, JSON batch format).
pub const CONTENT_TYPE: &str = "application/cloudevents-batch+json";

/// `dataschema` is this, the event's type, a colon and the schema version.
pub const SCHEMA_PREFIX: &str = "urn:airstream:schema:";

/// The `dataschema` of an event type in a version.
#[must_use]
pub fn schema_uri(type_name: &str, version: u32) -> String {
    format!("{SCHEMA_PREFIX}{type_name}:{version}")
}

/// One event as it stands in the log: CloudEvents attributes, our extensions (all lower case, as the standard demands),
/// and the data untouched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope<'a> {
    /// Always `1.0`.
    #[serde(borrow)]
    pub specversion: Cow<'a, str>,
    /// `<commitid>.<index>`; unique together with `source` and `subject`.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// `/<tenant>/<category>`.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// Wire name, such as `run.started`.
    #[serde(borrow, rename = "type")]
    pub type_name: Cow<'a, str>,
    /// The stream's id within its category.
    #[serde(borrow)]
    pub subject: Cow<'a, str>,
    /// When the command was taken.
    pub time: Timestamp,
    /// Always `application/json`.
    #[serde(borrow)]
    pub datacontenttype: Cow<'a, str>,
    /// See [`schema_uri`].
    #[serde(borrow)]
    pub dataschema: Cow<'a, str>,
    /// Whose event.
    #[serde(borrow)]
    pub tenantid: Cow<'a, str>,
    /// The stream's version after this event: 1 for its first.
    pub streamversion: u64,
    /// The command's id.
    #[serde(borrow)]
    pub commitid: Cow<'a, str>,
    /// What started the whole chain; handed on from command to event to command.
    #[serde(borrow)]
    pub correlationid: Cow<'a, str>,
    /// What directly caused this: an event's id, or the command's own when it came from outside.
    #[serde(borrow)]
    pub causationid: Cow<'a, str>,
    /// Who asked.
    #[serde(borrow)]
    pub actor: Cow<'a, str>,
    /// The command's wire name.
    #[serde(borrow)]
    pub command: Cow<'a, str>,
    /// See [`Fingerprint`](crate::Fingerprint).
    #[serde(borrow)]
    pub commandhash: Cow<'a, str>,
    /// W3C trace context of the request, when there was one.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<Cow<'a, str>>,
    /// What happened, as JSON.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

impl Envelope<'_> {
    /// The schema version, from `dataschema`; 0 when it is not one of ours.
    #[must_use]
    pub fn schema_version(&self) -> u32 {
        self.dataschema.rsplit(':').next().and_then(|version| version.parse().ok()).unwrap_or(0)
    }

    /// The category, from `source`.
    #[must_use]
    pub fn category(&self) -> &str {
        self.source.rsplit('/').next().unwrap_or_default()
    }

    /// Decodes the data, running upcasters where it is old.
    ///
    /// # Errors
    /// [`FactError`] as [`EventSet::decode`] says.
    pub fn decode<E: EventSet>(&self) -> Result<E, FactError> {
        E::decode(&self.type_name, self.schema_version(), self.data)
    }
}

/// `<commitid>.<index>`, the id of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    /// The commit it belongs to.
    pub commit: CommandId,
    /// Which event of the commit, from 0.
    pub index: u32,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.commit, self.index)
    }
}

impl FromStr for EventId {
    type Err = crate::InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || crate::InvalidName {
            what: "the event id",
            text: text.chars().take(64).collect(),
            rule: "it is a command id, a dot and the event's number",
        };
        let (commit, index) = text.rsplit_once('.').ok_or_else(invalid)?;
        Ok(Self { commit: CommandId::new(commit)?, index: index.parse().map_err(|_| invalid())? })
    }
}

/// A decided event, not yet in the log.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Wire name.
    pub type_name: &'static str,
    /// Schema version it is written with.
    pub schema_version: u32,
    /// Its data.
    pub data: Box<RawValue>,
}

impl NewEvent {
    /// Encodes an event.
    pub fn of<E: EventSet>(event: &E) -> Self {
        Self { type_name: event.type_name(), schema_version: event.schema_version(), data: event.encode() }
    }
}

/// A commit about to be written.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The stream.
    pub stream: StreamName,
    /// The command's id, and so the commit's.
    pub id: CommandId,
    /// The command's wire name.
    pub command: String,
    /// Its fingerprint.
    pub fingerprint: crate::Fingerprint,
    /// Version of the stream before this commit.
    pub version_before: u64,
    /// When the command was taken.
    pub at: Timestamp,
    /// Who asked.
    pub actor: PrincipalId,
    /// See [`Envelope::correlationid`].
    pub correlation: String,
    /// See [`Envelope::causationid`].
    pub causation: String,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What was decided; never empty.
    pub events: Vec<NewEvent>,
}

impl Draft {
    /// The message's payload.
    ///
    /// # Panics
    /// Never for drafts built from [`NewEvent::of`]: their data is JSON already.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let source = format!("/{}/{}", self.stream.tenant, self.stream.category);
        let envelopes: Vec<Envelope<'_>> = self
            .events
            .iter()
            .enumerate()
            .map(|(index, event)| Envelope {
                specversion: "1.0".into(),
                id: format!("{}.{index}", self.id).into(),
                source: source.as_str().into(),
                type_name: event.type_name.into(),
                subject: self.stream.id.as_str().into(),
                time: self.at,
                datacontenttype: "application/json".into(),
                dataschema: schema_uri(event.type_name, event.schema_version).into(),
                tenantid: self.stream.tenant.as_str().into(),
                streamversion: self.version_before + 1 + index as u64,
                commitid: self.id.as_str().into(),
                correlationid: self.correlation.as_str().into(),
                causationid: self.causation.as_str().into(),
                actor: self.actor.as_str().into(),
                command: self.command.as_str().into(),
                commandhash: self.fingerprint.as_str().into(),
                traceparent: self.traceparent.as_deref().map(Into::into),
                data: &event.data,
            })
            .collect();
        serde_json::to_vec(&envelopes).expect("an envelope is plain JSON")
    }
}

/// A commit as it stands in the log.
#[derive(Debug, Clone)]
pub struct Commit<'a> {
    /// Its events, in order; never empty.
    pub events: Vec<Envelope<'a>>,
}

/// The bytes are not a commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedCommit {
    /// Not the JSON we write.
    #[error("the message is not a CloudEvents batch: {0}")]
    NotABatch(String),
    /// A batch without events.
    #[error("the batch is empty")]
    Empty,
    /// Events of different commits, or versions with a hole.
    #[error("event {index} of the batch does not follow its predecessor")]
    Broken {
        /// Which event.
        index: usize,
    },
}

impl<'a> Commit<'a> {
    /// Reads a message of the log.
    ///
    /// # Errors
    /// [`MalformedCommit`] for anything but a non-empty batch of one commit with consecutive versions.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MalformedCommit> {
        let events = match plain::read(bytes) {
            Some(events) => events,
            None => serde_json::from_slice::<Vec<Envelope<'a>>>(bytes)
                .map_err(|error| MalformedCommit::NotABatch(error.to_string()))?,
        };
        let first = events.first().ok_or(MalformedCommit::Empty)?;
        let follows = |index: usize, event: &Envelope<'_>| {
            event.commitid == first.commitid
                && event.subject == first.subject
                && event.source == first.source
                && first.streamversion.checked_add(index as u64) == Some(event.streamversion)
        };
        match events.iter().enumerate().find(|(index, event)| !follows(*index, event)) {
            Some((index, _)) => Err(MalformedCommit::Broken { index }),
            None => Ok(Self { events }),
        }
    }

    /// The first event: a commit has at least one.
    #[must_use]
    pub fn first(&self) -> &Envelope<'a> {
        &self.events[0]
    }

    /// The command's id.
    #[must_use]
    #[allow(clippy::misnamed_getters, reason = "the commit's id stands in each of its events")]
    pub fn id(&self) -> &str {
        &self.first().commitid
    }

    /// The stream's version after this commit.
    #[must_use]
    pub fn version_after(&self) -> u64 {
        self.events[self.events.len() - 1].streamversion
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fingerprint;

    fn draft() -> Draft {
        Draft {
            stream: StreamName::new("dev", "light", "kitchen").expect("a valid name"),
            id: CommandId::new("c1").expect("a valid id"),
            command: "switch".into(),
            fingerprint: Fingerprint::of("switch", b"{}"),
            version_before: 4,
            at: Timestamp::UNIX_EPOCH,
            actor: PrincipalId::new("ann").expect("a valid name"),
            correlation: "k".into(),
            causation: "c1".into(),
            traceparent: None,
            events: (0..2)
                .map(|n| NewEvent { type_name: "light.switched", schema_version: 3, data: crate::encode(&n) })
                .collect(),
        }
    }

    #[test]
    fn a_commit_reads_back_what_was_written() {
        let bytes = draft().to_bytes();
        let commit = Commit::parse(&bytes).expect("our own bytes");
        assert_eq!((commit.id(), commit.version_after(), commit.events.len()), ("c1", 6, 2));
        let second = &commit.events[1];
        assert_eq!((second.id.as_ref(), second.schema_version(), second.category()), ("c1.1", 3, "light"));
        assert_eq!(second.data.get(), "1");
    }

    #[test]
    fn a_hole_in_the_versions_is_refused() {
        let text = String::from_utf8(draft().to_bytes()).expect("JSON is text");
        let broken = text.replace("\"streamversion\":6", "\"streamversion\":7");
        assert_eq!(Commit::parse(broken.as_bytes()).expect_err("a hole"), MalformedCommit::Broken { index: 1 });
        assert_eq!(Commit::parse(b"[]").expect_err("nothing"), MalformedCommit::Empty);
    }
}
