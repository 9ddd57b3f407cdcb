//! The connections of an account, on every server of a cluster: to be found by the name they were let in with, and ended.

use std::collections::BTreeMap;

use async_nats::ConnectError;
use kernel::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::durability::all_answers;
use crate::{Connection, Credentials};

/// Most connections that one server tells of at once.
const PAGE: usize = 4_096;

/// Connections could not be ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not end connections: {0}")]
pub struct CutError(String);

/// Who is connected in an account.
pub struct Connections {
    system: Connection,
    account: String,
    spared: String,
}

/// Servers by their id, with their own time.
pub type Moment = BTreeMap<String, Timestamp>;

#[derive(Deserialize)]
struct Answer {
    data: Option<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    server_id: String,
    now: Timestamp,
    #[serde(default)]
    connections: Vec<One>,
}

#[derive(Deserialize)]
struct One {
    cid: u64,
    start: Timestamp,
    #[serde(default)]
    authorized_user: String,
}

impl Connections {
    /// Of an account, seen through a user of the system account. The user `spared` (the platform's own) is never cut off.
    ///
    /// # Errors
    /// When no server lets that user in.
    pub async fn open(url: &str, system: &Credentials, account: &str, spared: &str) -> Result<Self, ConnectError> {
        let system = Connection::open(url, system, "airstream revocation").await?;
        Ok(Self { system, account: account.to_owned(), spared: spared.to_owned() })
    }

    /// Ends all connections with a name, or all there are, and says at what moment of each server that was. With `begun_by`,
    /// only those that had begun by that moment.
    ///
    /// # Errors
    /// When the servers could not be asked.
    pub async fn cut(&self, name: Option<&str>, begun_by: Option<&Moment>) -> Result<Moment, CutError> {
        let mut ask = json!({ "auth": true, "acc": self.account, "limit": PAGE });
        if let (Some(name), Some(ask)) = (name, ask.as_object_mut()) {
            ask.insert("user".to_owned(), name.into());
        }
        let client = self.system.client();
        let mut moment = Moment::new();
        // Those that are ended make room on the page for the next ones.
        loop {
            let answers = all_answers(client, "$SYS.REQ.SERVER.PING.CONNZ", ask.to_string()).await.map_err(CutError)?;
            if answers.is_empty() {
                return Err(CutError("no server answers in the system account".to_owned()));
            }
            let mut again = false;
            for answer in answers {
                let answer: Answer = serde_json::from_value(answer).map_err(|error| CutError(error.to_string()))?;
                let Some(listed) = answer.data else { continue };
                let first = *moment.entry(listed.server_id.clone()).or_insert(listed.now);
                let until =
                    begun_by.map_or(first, |begun_by| begun_by.get(&listed.server_id).copied().unwrap_or(first));
                let full = listed.connections.len() >= PAGE;
                let mut ended = 0;
                for one in listed.connections.iter().filter(|one| one.authorized_user != self.spared) {
                    // Later ones were decided when it was known already.
                    if one.start <= until {
                        self.end(&listed.server_id, one.cid).await?;
                        ended += 1;
                    }
                }
                again |= full && ended > 0;
            }
            if !again {
                return Ok(moment);
            }
        }
    }

    async fn end(&self, server: &str, cid: u64) -> Result<(), CutError> {
        let subject = format!("$SYS.REQ.SERVER.{server}.KICK");
        // One that has gone meanwhile is an error to the server, and what we want.
        let ended = self.system.client().request(subject, json!({ "cid": cid }).to_string().into()).await;
        ended.map(drop).map_err(|error| CutError(error.to_string()))
    }
}
