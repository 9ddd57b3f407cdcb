//! Reads the log: every guarded message is a CloudEvents batch that agrees with the subject it stands under.
//!
//! A message without a guard is foreign (a misdirected answer of the server, ADR 0013): it has a position and no meaning.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Evidence, Found, Message};

const LAW: &str = "the envelope agrees with its subject";

/// One commit.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) position: u64,
    pub(crate) stream: String,
    pub(crate) tenant: String,
    pub(crate) category: String,
    pub(crate) subject: String,
    pub(crate) id: String,
    pub(crate) events: Vec<Event>,
}

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) version: u64,
    pub(crate) time: String,
    pub(crate) actor: String,
    pub(crate) command: String,
    pub(crate) data: Value,
}

/// The log as commits, and where each stream's commits are in it.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) commits: Vec<Commit>,
    streams: BTreeMap<String, Vec<usize>>,
}

impl History {
    /// Every stream with its commits in order.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &Commit>)> {
        self.streams.iter().map(|(name, places)| (name.as_str(), places.iter().map(|place| &self.commits[*place])))
    }

    /// A stream's commits with a command id.
    pub(crate) fn of<'a>(&'a self, stream: &str, id: &'a str) -> impl Iterator<Item = &'a Commit> {
        let places = self.streams.get(stream).map(Vec::as_slice).unwrap_or_default();
        places.iter().map(|place| &self.commits[*place]).filter(move |commit| commit.id == id)
    }

    /// Whether the stream has any commit.
    pub(crate) fn has(&self, stream: &str) -> bool {
        self.streams.contains_key(stream)
    }

    /// Every event of a category with its commit, in order.
    pub(crate) fn events_of<'a>(&'a self, category: &'a str) -> impl Iterator<Item = (&'a Commit, &'a Event)> {
        let commits = self.commits.iter().filter(move |commit| commit.category == category);
        commits.flat_map(|commit| commit.events.iter().map(move |event| (commit, event)))
    }
}

pub(crate) fn read(evidence: &Evidence, found: &mut Found) -> History {
    let mut history = History::default();
    for message in evidence.log.iter().filter(|message| message.guarded) {
        match commit(message) {
            Ok(commit) => {
                history.streams.entry(commit.stream.clone()).or_default().push(history.commits.len());
                history.commits.push(commit);
            }
            Err(reason) => {
                found.add(LAW, format!("position {} under `{}`: {reason}", message.sequence, message.subject));
            }
        }
    }
    history
}

fn commit(message: &Message) -> Result<Commit, String> {
    let tokens: Vec<&str> = message.subject.split('.').collect();
    let ["ev", shard, tenant, category, id] = tokens[..] else {
        return Err("this is no subject of a commit".to_owned());
    };
    let stream = format!("{tenant}/{category}/{id}");
    if shard != self::shard(&stream).to_string() {
        return Err(format!("`{stream}` belongs to shard {}", self::shard(&stream)));
    }
    let batch: Value = serde_json::from_slice(&message.payload).map_err(|error| format!("it is not JSON: {error}"))?;
    let batch = batch.as_array().filter(|batch| !batch.is_empty()).ok_or("it is not a batch of events")?;
    let commit_id = text(&batch[0], "commitid")?;
    let events: Result<Vec<Event>, String> = batch
        .iter()
        .enumerate()
        .map(|(index, envelope)| {
            let event_id = format!("{commit_id}.{index}");
            let kind = text(envelope, "type")?;
            let must = |name: &str, wanted: &str| match text(envelope, name)? {
                actual if actual == wanted => Ok(()),
                actual => Err(format!("`{name}` of event {index} is `{actual}` and should be `{wanted}`")),
            };
            must("specversion", "1.0")?;
            must("tenantid", tenant)?;
            must("source", &format!("/{tenant}/{category}"))?;
            must("subject", id)?;
            must("commitid", &commit_id)?;
            must("id", &event_id)?;
            let schema = text(envelope, "dataschema")?;
            let version = schema.strip_prefix(&format!("urn:airstream:schema:{kind}:"));
            if version.and_then(|version| version.parse::<u32>().ok()).is_none() {
                return Err(format!("`dataschema` of event {index} is `{schema}`, which is not one of `{kind}`"));
            }
            let time = text(envelope, "time")?;
            crate::time::micros(&time).ok_or_else(|| format!("`{time}` is not a time"))?;
            for name in ["correlationid", "causationid", "commandhash"] {
                text(envelope, name)?;
            }
            Ok(Event {
                kind,
                version: envelope["streamversion"].as_u64().ok_or("`streamversion` is not a number")?,
                time,
                actor: text(envelope, "actor")?,
                command: text(envelope, "command")?,
                data: envelope["data"].clone(),
            })
        })
        .collect();
    Ok(Commit {
        position: message.sequence,
        stream,
        tenant: tenant.to_owned(),
        category: category.to_owned(),
        subject: id.to_owned(),
        id: commit_id,
        events: events?,
    })
}

fn text(envelope: &Value, name: &str) -> Result<String, String> {
    let found = envelope.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    found.map(str::to_owned).ok_or_else(|| format!("`{name}` is missing"))
}

/// FNV-1a over the stream's name, 64 bit, modulo 16: written down in DESIGN §2 and in `docs/bus.md`.
pub(crate) fn shard(stream: &str) -> u64 {
    let mut hash: u64 = 14_695_981_039_346_656_037;
    for byte in stream.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(1_099_511_628_211);
    }
    hash % 16
}
