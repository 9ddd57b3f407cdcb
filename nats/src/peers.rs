//! From instance to instance: `peer.<instance>` takes commands for the shards that this instance has the lease of. Only the
//! platform's own user may publish there: whoever can, can also send what the platform keeps to itself.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message, SubscribeError};
use async_trait::async_trait;
use futures::StreamExt;
use kernel::{CommandId, PrincipalId, Problem, StreamName};
use runtime::forward::{self, Unreachable};
use runtime::{Answer, Commands, Request};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::patience::Unanswered;
use crate::{Connection, headers};

/// How long to wait for another instance before executing here. One that hangs still has its lease for a while, and callers
/// should not wait as long as that; asking twice is safe.
const PATIENCE: Duration = Duration::from_secs(3);

/// Everything of a request but its body.
#[derive(Serialize, Deserialize)]
struct Meta {
    tenant: String,
    category: String,
    id: String,
    command: String,
    command_id: Option<String>,
    principal: String,
    internal: bool,
    expected_version: Option<u64>,
    correlation: Option<String>,
    causation: Option<String>,
    traceparent: Option<String>,
}

const META: &str = "Airstream-Request";

impl Meta {
    fn of(request: &Request) -> Self {
        Self {
            tenant: request.stream.tenant.to_string(),
            category: request.stream.category.to_string(),
            id: request.stream.id.to_string(),
            command: request.command.clone(),
            command_id: request.id.as_ref().map(ToString::to_string),
            principal: request.principal.to_string(),
            internal: request.internal,
            expected_version: request.expected_version,
            correlation: request.correlation.clone(),
            causation: request.causation.clone(),
            traceparent: request.traceparent.clone(),
        }
    }

    fn request(self, body: bytes::Bytes) -> Result<Request, Problem> {
        let stream = StreamName::new(&self.tenant, &self.category, &self.id)?;
        let id = self.command_id.as_deref().map(CommandId::new).transpose()?;
        let principal = PrincipalId::new(&self.principal)?;
        Ok(Request {
            id,
            internal: self.internal,
            expected_version: self.expected_version,
            correlation: self.correlation,
            causation: self.causation,
            traceparent: self.traceparent,
            ..Request::new(stream, &self.command, body, principal)
        })
    }
}

fn subject(instance: &str) -> String {
    format!("peer.{instance}")
}

/// The other instances, over NATS.
pub struct Peers {
    connection: Connection,
}

impl Peers {
    /// Over this connection.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }
}

#[async_trait]
impl forward::Peers for Peers {
    async fn ask(&self, instance: &str, request: &Request) -> Result<Result<Answer, Problem>, Unreachable> {
        let meta = serde_json::to_string(&Meta::of(request))
            .map_err(|error| Unreachable { reason: error.to_string(), perhaps_taken: false })?;
        let mut map = HeaderMap::new();
        map.insert(META, meta);
        let ask = async_nats::Request::new().headers(map).payload(request.body.clone());
        let answer = self.connection.request(subject(instance), ask, PATIENCE).await;
        let message = answer.map_err(|error| {
            let perhaps_taken = matches!(error, Unanswered::Unknown(_));
            Unreachable { reason: error.to_string(), perhaps_taken }
        })?;
        let header = |name: &str| message.headers.as_ref().and_then(|map| map.get(name));
        let accepted = header(headers::STATUS).is_some_and(|status| status.as_str() == "200");
        let repeated = header(headers::REPEATED).is_some();
        let read = |error: serde_json::Error| {
            let reason = format!("its answer is not readable: {error}");
            Unreachable { reason, perhaps_taken: true }
        };
        if accepted {
            let answer: Answer = serde_json::from_slice(&message.payload).map_err(read)?;
            return Ok(Ok(Answer { repeated, ..answer }));
        }
        Ok(Err(serde_json::from_slice(&message.payload).map_err(read)?))
    }
}

/// Executes what other instances send, until `stop`, and then until what was taken is answered.
///
/// # Errors
/// When the subscription could not be made.
pub async fn serve_peers(
    connection: &Connection,
    instance: &str,
    commands: Arc<dyn Commands>,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + 'static, SubscribeError> {
    let client = connection.client.clone();
    let mut messages = client.subscribe(subject(instance)).await?;
    Ok(async move {
        let tasks = TaskTracker::new();
        loop {
            let message = tokio::select! {
                () = stop.cancelled() => break,
                message = messages.next() => message,
            };
            let Some(message) = message else { break };
            let (client, commands) = (client.clone(), Arc::clone(&commands));
            tasks.spawn(async move {
                let Some(to) = message.reply.clone() else { return };
                let (map, body) = match execute(message, &*commands).await {
                    Ok(answer) => {
                        let mut map = HeaderMap::new();
                        map.insert(headers::STATUS, "200");
                        if answer.repeated {
                            map.insert(headers::REPEATED, "true");
                        }
                        (map, serde_json::to_vec(&answer))
                    }
                    Err(problem) => {
                        let mut map = HeaderMap::new();
                        map.insert(headers::STATUS, problem.status.to_string());
                        (map, serde_json::to_vec(&problem))
                    }
                };
                // Not sent, the asking instance executes the command itself; its id makes the two one.
                if let Err(error) = client.publish_with_headers(to, map, body.unwrap_or_default().into()).await {
                    tracing::debug!(%error, "an answer to another instance could not be sent");
                }
            });
        }
        // From here on they are told that nobody listens, and execute it themselves.
        let _ = messages.unsubscribe().await;
        tasks.close();
        tasks.wait().await;
        let _ = client.flush().await;
    })
}

async fn execute(message: Message, commands: &dyn Commands) -> Result<Answer, Problem> {
    let meta = message.headers.as_ref().and_then(|map| map.get(META)).map(async_nats::HeaderValue::as_str);
    let meta: Meta = serde_json::from_str(meta.unwrap_or_default())
        .map_err(|error| Problem::malformed(format!("a request of another instance cannot be read: {error}")))?;
    commands.execute(meta.request(message.payload)?).await
}
