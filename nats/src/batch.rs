//! Atomic batch publish (NATS ADR-50), and the plain publish beside it.

use async_nats::{HeaderMap, PublishError, Request};
use runtime::{Append, AppendError};
use tokio::time::Instant;

use crate::ack::{self, Outcome};
use crate::connection::REQUEST_TIMEOUT;
use crate::{Connection, headers, subjects};

/// Most messages in one atomic batch (server limit).
pub(crate) const MAX_BATCH: usize = 1_000;

fn headers_of(commit: &Append) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("Content-Type", kernel::CONTENT_TYPE);
    // The duplicate window is one for all tenants, so the id has to say whose it is.
    map.insert("Nats-Msg-Id", format!("{}/{}", commit.stream, commit.id));
    map.insert("Nats-Expected-Last-Subject-Sequence", commit.expected.sequence().to_string());
    map.insert(headers::TYPES, commit.types.as_str());
    map
}

/// Publishes one commit and waits for the answer.
pub(crate) async fn publish(connection: &Connection, commit: &Append) -> Outcome {
    let request = Request::new().headers(headers_of(commit)).payload(commit.payload.clone());
    ack::read(connection.request(subjects::commit(&commit.stream), request, REQUEST_TIMEOUT).await, false)
}

/// Publishes commits of different streams as one atomic batch: all are written, next to each other, or none.
/// The sequence in the answer is the last one's.
pub(crate) async fn publish_together(connection: &Connection, commits: &[&Append]) -> Outcome {
    match send(connection, commits).await {
        Ok(outcome) => outcome,
        // The last message of the batch was not sent, so the server will drop what it has of it.
        Err(error) => Outcome::BatchTurnedDown(error.to_string()),
    }
}

async fn send(connection: &Connection, commits: &[&Append]) -> Result<Outcome, PublishError> {
    let client = &connection.client;
    // Without a connection its messages would wait in the client, and might be sent when a later try has been, too.
    if !connection.is_up_by(Instant::now() + REQUEST_TIMEOUT).await {
        return Ok(Outcome::Failed(AppendError::Unavailable("the connection to NATS is down".to_owned())));
    }
    let batch = client.new_inbox().rsplit('.').next().unwrap_or_default().to_owned();
    let Some((last, before)) = commits.split_last() else { return Ok(Outcome::BatchTurnedDown("it is empty".into())) };
    let stamped = |commit: &Append, number: usize| {
        let mut map = headers_of(commit);
        map.insert("Nats-Batch-Id", batch.as_str());
        map.insert("Nats-Batch-Sequence", number.to_string());
        map
    };
    for (index, commit) in before.iter().enumerate() {
        let subject = subjects::commit(&commit.stream);
        client.publish_with_headers(subject, stamped(commit, index + 1), commit.payload.clone()).await?;
    }
    let mut map = stamped(last, commits.len());
    map.insert("Nats-Batch-Commit", "1");
    let request = Request::new().headers(map).payload(last.payload.clone());
    Ok(ack::read(connection.request(subjects::commit(&last.stream), request, REQUEST_TIMEOUT).await, true))
}
