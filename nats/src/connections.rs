//! The connections of an account, on every server of a cluster: to be found by the name they were let in with, and ended.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::ConnectError;
use futures::StreamExt;
use kernel::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::{Connection, Credentials};

/// Most connections that one server tells of at once.
const PAGE: usize = 4_096;

/// Asks every server who is connected to it.
const PING: &str = "$SYS.REQ.SERVER.PING.CONNZ";
/// How long the first of them may take to answer, and each further one after that.
const FIRST: Duration = Duration::from_secs(3);
const NEXT: Duration = Duration::from_millis(500);

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

    /// Ends all connections with a name, or all there are, and says at what moment of each server that was. Of those on a
    /// server that is in `begun_by`, only the ones that had begun by then: later ones were decided when it was known already.
    ///
    /// A server that does not answer is not in what is returned.
    ///
    /// # Errors
    /// When the servers could not be asked.
    pub async fn cut(&self, name: Option<&str>, begun_by: &Moment) -> Result<Moment, CutError> {
        let mut moment = begun_by.clone();
        // Those that are ended make room on the page for the next ones.
        while self.cut_a_page(name, &mut moment).await? {}
        Ok(moment)
    }

    /// Whether there may be more.
    async fn cut_a_page(&self, name: Option<&str>, moment: &mut Moment) -> Result<bool, CutError> {
        let mut ask = json!({ "auth": true, "acc": self.account, "limit": PAGE });
        if let (Some(name), Some(ask)) = (name, ask.as_object_mut()) {
            ask.insert("user".to_owned(), name.into());
        }
        let client = self.system.client();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(failed)?;
        client.publish_with_reply(PING, inbox, ask.to_string().into()).await.map_err(failed)?;
        let (mut patience, mut more) = (FIRST, false);
        // How many there are nobody tells.
        while let Ok(Some(answer)) = tokio::time::timeout(patience, answers.next()).await {
            patience = NEXT;
            let answer: Answer = serde_json::from_slice(&answer.payload).map_err(failed)?;
            let Some(listed) = answer.data else { continue };
            let until = *moment.entry(listed.server_id.clone()).or_insert(listed.now);
            let here = listed.connections.iter().filter(|one| one.authorized_user != self.spared && one.start <= until);
            let mut ended = false;
            for one in here {
                self.end(&listed.server_id, one.cid).await?;
                ended = true;
            }
            more |= ended && listed.connections.len() >= PAGE;
        }
        if patience == FIRST { Err(CutError("no server answers in the system account".to_owned())) } else { Ok(more) }
    }

    async fn end(&self, server: &str, cid: u64) -> Result<(), CutError> {
        let subject = format!("$SYS.REQ.SERVER.{server}.KICK");
        // One that has gone meanwhile is an error to the server, and what we want.
        let ended = self.system.client().request(subject, json!({ "cid": cid }).to_string().into()).await;
        ended.map(drop).map_err(failed)
    }
}

fn failed(error: impl ToString) -> CutError {
    CutError(error.to_string())
}
