//! Whether the server keeps what it acknowledges. JetStream's default is to flush every two minutes.

use std::time::Duration;

use async_nats::StatusCode;
use futures::StreamExt;
use serde_json::Value;

use crate::connection::REQUEST_TIMEOUT;
use crate::{Connection, Credentials};

/// What a server promises about acknowledged messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Durability {
    /// Flushed before the acknowledgement.
    Always,
    /// Flushed later: a power failure loses what was acknowledged since. A killed process loses nothing.
    Every(Duration),
    /// It did not tell: its monitoring is not open to us.
    Unknown(String),
}

/// Asks the server through its system account.
pub async fn durability(url: &str, system: &Credentials) -> Durability {
    match ask(url, system).await {
        Ok(found) => found,
        Err(reason) => Durability::Unknown(reason),
    }
}

async fn ask(url: &str, system: &Credentials) -> Result<Durability, String> {
    if system.user.is_empty() {
        return Err("no user of the system account is configured".to_owned());
    }
    let connection =
        Connection::open(url, system, "airstream durability check").await.map_err(|error| error.to_string())?;
    let client = &connection.client;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
    let ask = client.publish_with_reply("$SYS.REQ.SERVER.PING.JSZ", inbox, r#"{"config":true}"#.into());
    ask.await.map_err(|error| error.to_string())?;
    // Every server of a cluster answers for itself; the weakest promise is what holds.
    let (mut weakest, mut heard, mut servers) = (Durability::Always, 0, 1);
    let deadline = tokio::time::Instant::now() + REQUEST_TIMEOUT;
    while heard < servers {
        let answer = tokio::time::timeout_at(deadline, answers.next()).await.ok().flatten();
        let answer = answer.ok_or_else(|| format!("{heard} of {servers} servers answered"))?;
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Err("the user is not of the system account".to_owned());
        }
        let answer: Value = serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?;
        servers = answer.pointer("/data/meta_cluster/cluster_size").and_then(Value::as_u64).unwrap_or(1);
        heard += 1;
        match (&weakest, promise(&answer)?) {
            (Durability::Every(known), Durability::Every(other)) if other <= *known => {}
            (_, Durability::Always) => {}
            (_, other) => weakest = other,
        }
    }
    Ok(weakest)
}

fn promise(answer: &Value) -> Result<Durability, String> {
    let config = answer.pointer("/data/config").ok_or("JetStream is not enabled")?;
    if config.get("sync_always").and_then(Value::as_bool) == Some(true) {
        return Ok(Durability::Always);
    }
    let nanos = config.get("sync_interval").and_then(Value::as_u64).ok_or("it does not say how often it flushes")?;
    Ok(Durability::Every(Duration::from_nanos(nanos)))
}
