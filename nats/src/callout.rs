//! Who may come in. The servers know the platform's own users; about everybody else they ask here, and get a list of
//! subjects that we have signed (nats-server's *authorisation callout*).

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, SubscribeError};
use futures::StreamExt;
use futures::future::BoxFuture;
use kernel::Timestamp;
use nkeys::{KeyPair, KeyPairType};
use runtime::clock;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Connection;
use crate::jwt::Question;

/// Where servers ask.
pub(crate) const SUBJECT: &str = "$SYS.REQ.USER.AUTH";

/// How long a server waits for an answer before it turns the client away (its `authorization.timeout`, unless set).
pub const SERVER_WAITS: Duration = Duration::from_secs(2);

/// Most questions in hand at once. Further ones are refused at once: their clients come again by themselves.
const IN_HAND: usize = 256;

/// Somebody at the door.
#[derive(Clone, PartialEq, Eq)]
pub struct Knock {
    /// What was sent as token or as password.
    pub secret: String,
    /// The address it comes from.
    pub host: String,
    /// What the program calls itself.
    pub program: String,
}

/// Without the secret.
impl std::fmt::Debug for Knock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Knock").field("host", &self.host).field("program", &self.program).finish_non_exhaustive()
    }
}

/// Somebody who may come in, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What the server calls the connection: it can be found by this name, see [`crate::Connections`].
    pub name: String,
    /// Subjects it may publish to; none means it may not publish.
    pub publish: Vec<String>,
    /// Subjects it may subscribe to; none means it may not subscribe.
    pub subscribe: Vec<String>,
    /// When the server ends the connection.
    pub expires_at: Option<Timestamp>,
}

/// Decides who may come in. What it says about a refusal is written to the server's log and told to nobody else.
pub type Admit = Arc<dyn Fn(Knock) -> BoxFuture<'static, Result<Admitted, String>> + Send + Sync>;

/// The key that vouches for tenants' programs, and the account that they are put into.
pub struct Signer {
    key: KeyPair,
    account: String,
}

/// A seed that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the seed for the authorisation callout is not that of an account key: {0}")]
pub struct BadSeed(String);

impl Signer {
    /// From the seed of an account key (`SA…`) whose public key is the `issuer` in the servers' configuration.
    ///
    /// # Errors
    /// [`BadSeed`].
    pub fn new(seed: &str, account: &str) -> Result<Self, BadSeed> {
        let key = KeyPair::from_seed(seed).map_err(|error| BadSeed(error.to_string()))?;
        match key.key_pair_type() {
            KeyPairType::Account => Ok(Self { key, account: account.to_owned() }),
            other => Err(BadSeed(format!("it is one of kind {other:?}"))),
        }
    }

    /// A key that nobody else has, as a seed.
    ///
    /// # Errors
    /// [`BadSeed`], in practice never.
    pub fn fresh_seed() -> Result<String, BadSeed> {
        KeyPair::new_account().seed().map_err(|error| BadSeed(error.to_string()))
    }

    /// The public key, for the servers' configuration.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.key.public_key()
    }
}

/// Answers the servers' questions until `stop`. Several instances share them.
///
/// # Errors
/// When the subscription could not be made.
pub async fn serve_callout(
    connection: &Connection,
    signer: Signer,
    admit: Admit,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, SubscribeError> {
    let client = connection.client().clone();
    let mut questions = client.queue_subscribe(SUBJECT, "airstream".to_owned()).await?;
    // Who knocks right after the start must be heard.
    let _ = tokio::time::timeout(SERVER_WAITS, client.flush()).await;
    let (signer, places) = (Arc::new(signer), Arc::new(Semaphore::new(IN_HAND)));
    Ok(async move {
        let tasks = TaskTracker::new();
        loop {
            let question = tokio::select! {
                () = stop.cancelled() => break,
                question = questions.next() => question,
            };
            let Some(question) = question else { break };
            let place = Arc::clone(&places).try_acquire_owned().ok();
            let (client, signer, admit) = (client.clone(), Arc::clone(&signer), Arc::clone(&admit));
            tasks.spawn(async move {
                let Some(to) = question.reply.clone() else { return };
                let answer = answer(&question, &signer, place.is_some().then_some(&admit)).await;
                if let Some(answer) = answer
                    && let Err(error) = client.publish(to, answer.into()).await
                {
                    tracing::warn!(%error, "a NATS server could not be told who may come in");
                }
            });
        }
        let _ = questions.unsubscribe().await;
        tasks.close();
        tasks.wait().await;
        let _ = tokio::time::timeout(SERVER_WAITS, client.flush()).await;
    })
}

async fn answer(question: &Message, signer: &Signer, admit: Option<&Admit>) -> Option<String> {
    let question = match Question::read(&question.payload) {
        Ok(question) => question,
        Err(reason) => {
            tracing::error!(reason, "a NATS server asks who may come in, and cannot be understood");
            return None;
        }
    };
    let knock = Knock {
        secret: question.secret().to_owned(),
        host: question.host().to_owned(),
        program: question.program().to_owned(),
    };
    let admitted = match admit {
        None => Err("too many at once; come again".to_owned()),
        // Later than this nobody listens to the answer.
        Some(admit) => tokio::time::timeout(SERVER_WAITS, admit(knock))
            .await
            .unwrap_or_else(|_| Err("it could not be told in time; come again".to_owned())),
    };
    let answer = question.answer(&signer.key, &signer.account, clock::now(), admitted.as_ref().map_err(String::as_str));
    answer.inspect_err(|error| tracing::error!(%error, "an answer to a NATS server cannot be signed")).ok()
}
