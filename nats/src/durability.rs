//! Whether the server keeps what it acknowledges. JetStream's default is to flush every two minutes.

use std::time::Duration;

use serde_json::Value;

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
    let request = connection.client.request("$SYS.REQ.SERVER.PING.JSZ", r#"{"config":true}"#.into());
    let answer = request.await.map_err(|error| error.to_string())?;
    let answer: Value = serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?;
    let config = answer.pointer("/data/config").ok_or("JetStream is not enabled")?;
    if config.get("sync_always").and_then(Value::as_bool) == Some(true) {
        return Ok(Durability::Always);
    }
    let nanos = config.get("sync_interval").and_then(Value::as_u64).ok_or("it does not say how often it flushes")?;
    Ok(Durability::Every(Duration::from_nanos(nanos)))
}
