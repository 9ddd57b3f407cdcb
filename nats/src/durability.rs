//! Whether the servers keep what they acknowledge. JetStream's default is to flush every two minutes.

use std::time::Duration;

use async_nats::Client;
use futures::StreamExt;
use serde_json::Value;

use crate::{Connection, Credentials};

/// What servers promise about acknowledged messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durability {
    /// Flushed before the acknowledgement.
    Always,
    /// Flushed later: a power failure loses what was acknowledged since. A killed process loses nothing.
    Every(Duration),
    /// It did not tell: its monitoring is not open to us.
    Unknown(String),
}

/// The setting that makes the promise.
pub const ADVICE: &str =
    "set `sync_interval: always` in the `jetstream` block of every server and restart them one by one";

impl Durability {
    /// What may be lost, in a sentence; `None` when nothing is.
    #[must_use]
    pub fn loss(&self, replicas: usize) -> Option<String> {
        match self {
            Self::Always => None,
            // What each loses is not the same: copies help against the loss of one server, not of all at once.
            Self::Every(interval) if replicas < 3 => Some(format!(
                "NATS acknowledges before it syncs to disk (every {}): a power failure or a kernel crash of the server that \
                 holds the log loses up to that much of what was accepted. A killed process loses nothing",
                said(*interval)
            )),
            Self::Every(interval) => Some(format!(
                "NATS acknowledges before it syncs to disk (every {}): what was accepted survives the loss of one server, \
                 but up to that much is lost when a majority loses power together, or when one does while the others are \
                 paused or cut off and it comes back first",
                said(*interval)
            )),
            Self::Unknown(reason) => Some(format!(
                "whether NATS syncs to disk before it acknowledges is not known ({reason}), so it is not promised that what \
                 was accepted survives a power failure"
            )),
        }
    }
}

fn said(interval: Duration) -> String {
    if interval >= Duration::from_secs(1) { format!("{} s", interval.as_secs()) } else { format!("{interval:?}") }
}

/// What one server says about itself.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) server: String,
    /// `None` when JetStream is off.
    pub(crate) durability: Option<Durability>,
    /// Its time, as RFC 3339.
    pub(crate) time: Option<String>,
}

/// Asks the servers through their system account; the weakest promise is what counts.
pub async fn durability(url: &str, system: &Credentials) -> Durability {
    match reports(url, system).await {
        Ok(reports) => weakest(&reports),
        Err(reason) => Durability::Unknown(reason),
    }
}

pub(crate) fn weakest(reports: &[Report]) -> Durability {
    let mut found = None;
    for durability in reports.iter().filter_map(|report| report.durability.clone()) {
        found = Some(match (found, durability) {
            (Some(Durability::Unknown(reason)), _) | (_, Durability::Unknown(reason)) => Durability::Unknown(reason),
            (Some(Durability::Every(one)), Durability::Every(other)) => Durability::Every(one.max(other)),
            (Some(Durability::Every(interval)), Durability::Always) => Durability::Every(interval),
            (_, durability) => durability,
        });
    }
    found.unwrap_or_else(|| Durability::Unknown("no server has JetStream enabled".to_owned()))
}

/// One report per server of the cluster.
pub(crate) async fn reports(url: &str, system: &Credentials) -> Result<Vec<Report>, String> {
    if system.user.is_empty() {
        return Err("no user of the system account is configured".to_owned());
    }
    let connection =
        Connection::open(url, system, "airstream durability check").await.map_err(|error| error.to_string())?;
    let answers = all_answers(&connection.client, "$SYS.REQ.SERVER.PING.JSZ", r#"{"config":true}"#).await?;
    if answers.is_empty() {
        return Err(format!("`{}` does not seem to be a user of the system account", system.user));
    }
    Ok(answers.iter().map(report).collect())
}

/// Every server answers a ping. The first answer tells how many there are in the cluster; a lone server is one.
async fn all_answers(client: &Client, subject: &'static str, body: &'static str) -> Result<Vec<Value>, String> {
    let inbox = client.new_inbox();
    let mut messages = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
    client.publish_with_reply(subject, inbox, body.into()).await.map_err(|error| error.to_string())?;
    let mut answers = Vec::new();
    let mut patience = Duration::from_secs(3);
    while let Ok(Some(message)) = tokio::time::timeout(patience, messages.next()).await {
        if message.status.is_some() {
            break;
        }
        let answer: Value = serde_json::from_slice(&message.payload).map_err(|error| error.to_string())?;
        let servers = answer.pointer("/data/meta_cluster/cluster_size").and_then(Value::as_u64).unwrap_or(1);
        answers.push(answer);
        if answers.len() as u64 >= servers {
            break;
        }
        // One of them may be away, and we wait for it in vain.
        patience = Duration::from_millis(500);
    }
    Ok(answers)
}

fn report(answer: &Value) -> Report {
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let config = answer.pointer("/data/config").filter(|config| config.is_object());
    let durability = config.map(|config| {
        if config.get("sync_always").and_then(Value::as_bool) == Some(true) {
            return Durability::Always;
        }
        match config.get("sync_interval").and_then(Value::as_u64) {
            Some(nanos) => Durability::Every(Duration::from_nanos(nanos)),
            None => Durability::Unknown("it does not say how often it flushes".to_owned()),
        }
    });
    Report { server: text("/server/name").unwrap_or_default(), durability, time: text("/server/time") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_server_counts() {
        let server = |durability| Report { server: String::new(), durability, time: None };
        let every = |seconds| Durability::Every(Duration::from_secs(seconds));
        let of = |all: &[Durability]| weakest(&all.iter().map(|one| server(Some(one.clone()))).collect::<Vec<_>>());
        assert_eq!(of(&[Durability::Always, Durability::Always]), Durability::Always);
        assert_eq!(of(&[Durability::Always, every(2), every(120)]), every(120));
        assert_eq!(of(&[every(120), Durability::Always]), every(120));
        assert!(matches!(of(&[Durability::Unknown("x".into()), Durability::Always]), Durability::Unknown(_)));
        // A server without JetStream holds nothing; if none has it, nothing is known.
        assert_eq!(weakest(&[server(None), server(Some(Durability::Always))]), Durability::Always);
        assert!(matches!(weakest(&[server(None)]), Durability::Unknown(_)));
    }

    #[test]
    fn copies_change_what_is_lost_but_do_not_replace_the_sync() {
        let late = Durability::Every(Duration::from_secs(120));
        let (one, three) = (late.loss(1).unwrap_or_default(), late.loss(3).unwrap_or_default());
        assert!(one.contains("of the server that holds the log") && three.contains("a majority"), "{one}\n{three}");
        assert_eq!(Durability::Always.loss(1), None);
    }
}
