//! The way into a queue for those who may not touch its stream: what they send is stamped anew and put there by us.
//!
//! Tenants have no right to JetStream. Some headers mean something to it (`Nats-Msg-Id` would let one tenant's message
//! swallow another's, `Nats-Rollup` would clear the stream), so of theirs only ours are kept.

use std::sync::Arc;

use async_nats::HeaderMap;
use futures::future::BoxFuture;
use serde_json::json;

use crate::door::{InOrder, Incoming, Reply};
use crate::{QueueError, WorkQueue, headers};

/// The headers that mean something to whoever executes the message.
const KEPT: [&str; 4] = [headers::COMMAND_ID, headers::CORRELATION_ID, headers::EXPECTED_VERSION, headers::TRACEPARENT];

/// Takes messages into a queue, under the subject that they were sent to. The answer has the form of JetStream's own, so that
/// a client's `publish` understands it: from then on the message is durable.
#[must_use]
#[allow(clippy::async_yields_async, reason = "the next message is taken before the answer to this one is there")]
pub fn intake(queue: WorkQueue) -> InOrder {
    Arc::new(move |message| {
        let queue = queue.clone();
        Box::pin(async move {
            let kept = kept(&message);
            let taken = queue.hand_over(message.subject().to_owned(), kept, message.payload().clone()).await;
            answer(queue.stream(), taken)
        })
    })
}

fn answer(
    stream: &'static str,
    taken: impl Future<Output = Result<u64, QueueError>> + Send + 'static,
) -> BoxFuture<'static, Reply> {
    Box::pin(async move {
        match taken.await {
            Ok(sequence) => Reply::of(200, &json!({ "stream": stream, "seq": sequence }), false),
            Err(error) => {
                tracing::warn!(%error, "a command could not be queued");
                let sentence = "The queue cannot be reached right now, or did not say that it has the command.";
                let error = json!({ "code": 503, "err_code": 0, "description": sentence });
                Reply::of(503, &json!({ "error": error }), false)
            }
        }
    })
}

fn kept(message: &Incoming) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in KEPT {
        if let Some(value) = message.header(name) {
            kept.insert(name, value);
        }
    }
    kept
}
