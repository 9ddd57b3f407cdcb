//! What was asked and what was heard, as a caller would write it down.

use std::collections::BTreeMap;
use std::sync::Mutex;

use checker::{Asked, Outcome, Queued};
use serde_json::Value;

use crate::mix::{Command, Door};

/// One answer, as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) bytes: Vec<u8>,
    pub(crate) body: Value,
}

impl Heard {
    pub(crate) fn new(status: u16, bytes: Vec<u8>) -> Self {
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Self { status, bytes, body }
    }

    fn code(&self) -> String {
        self.body["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.body["accepted"] == true && self.body["events"].as_array().is_some_and(|events| !events.is_empty())
    }

    /// What the checker is told.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.status {
            200..300 if self.is_accepted() => Outcome::Accepted {
                position: position(&self.body["position"]),
                version: self.body["version"].as_u64().unwrap_or_default(),
                events: self.body["events"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|event| text(&event["type"]))
                    .collect(),
            },
            200..300 => Outcome::NothingToDo,
            504 => Outcome::Unknown,
            _ if self.code() == "outcome_unknown" => Outcome::Unknown,
            429 | 503 => Outcome::NotNow { code: self.code() },
            _ if self.code() == "contended" => Outcome::NotNow { code: self.code() },
            _ => Outcome::Refused { code: self.code() },
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// `p1-2a` is place 42. Callers must not know that; the checker has to compare with the log.
fn position(token: &Value) -> u64 {
    let digits = token.as_str().and_then(|token| token.strip_prefix("p1-")).unwrap_or_default();
    u64::from_str_radix(digits, 16).unwrap_or_default()
}

/// Everything that was asked.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    asked: Vec<Asked>,
    queued: Vec<Queued>,
    /// The first acceptance of each command id by stream and id, with the door it came through.
    accepted: BTreeMap<(String, String), (Door, Heard)>,
    /// The version last seen of a stream.
    versions: BTreeMap<String, u64>,
    findings: Vec<String>,
}

impl Ledger {
    /// Notes one try.
    pub(crate) fn tried(&self, command: &Command, heard: Option<&Heard>) {
        let stream = command.full_stream();
        let outcome = heard.map_or(Outcome::Unknown, Heard::outcome);
        let mut pages = self.0.lock().unwrap();
        let pages = &mut *pages;
        if let (Outcome::Accepted { version, .. }, Some(heard)) = (&outcome, heard) {
            let seen = pages.versions.entry(stream.clone()).or_default();
            *seen = (*version).max(*seen);
            let key = (stream.clone(), command.id.clone());
            let (door, first) = pages.accepted.entry(key).or_insert_with(|| (command.door, heard.clone()));
            // The same door says the same bytes; the other one the same document.
            let same = if *door == command.door { first.bytes == heard.bytes } else { first.body == heard.body };
            if !same {
                pages.findings.push(format!(
                    "`{}` on `{stream}` was answered with {} and, when it was repeated, with {}",
                    command.id, first.body, heard.body
                ));
            }
        }
        pages.asked.push(Asked { stream, command: command.name.to_owned(), command_id: command.id.clone(), outcome });
    }

    /// Notes that the queue has taken a command. Called in the order in which it took them, per stream.
    pub(crate) fn queued(&self, command: &Command) {
        let mut pages = self.0.lock().unwrap();
        let place = pages.queued.len() as u64;
        pages.queued.push(Queued {
            stream: command.full_stream(),
            command_id: command.id.clone(),
            place,
            leaves_a_trace: command.leaves_a_trace,
        });
    }

    pub(crate) fn was_accepted(&self, command: &Command) -> bool {
        self.0.lock().unwrap().accepted.contains_key(&(command.full_stream(), command.id.clone()))
    }

    pub(crate) fn version(&self, stream: &str) -> u64 {
        self.0.lock().unwrap().versions.get(stream).copied().unwrap_or_default()
    }

    /// Notes something that is wrong whatever the log says.
    pub(crate) fn finding(&self, sentence: String) {
        self.0.lock().unwrap().findings.push(sentence);
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        self.0.lock().unwrap().findings.clone()
    }

    pub(crate) fn pages(&self) -> (Vec<Asked>, Vec<Queued>) {
        let pages = self.0.lock().unwrap();
        (pages.asked.clone(), pages.queued.clone())
    }
}
