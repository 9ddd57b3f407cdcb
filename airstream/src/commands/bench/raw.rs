//! The other side for the log: the same messages, straight from the stock client, with nothing in between.

use anyhow::{Context as _, ensure};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use kernel::StreamName;
use nats::subjects;
use runtime::clock;
use serde::Deserialize;

/// A message of one stream: where it goes, what its guard says, what is in it.
pub(super) struct Message {
    stream: StreamName,
    subject: String,
    /// Where the stream's last message stands.
    pub(super) last: u64,
    /// Made beforehand: the limit is what the server and its client can do, not what making JSON costs.
    payload: Bytes,
    /// Event types, for the header.
    types: String,
}

impl Message {
    /// The first one of a stream.
    pub(super) fn new(stream: StreamName, payload: Bytes, types: String) -> Self {
        Self { subject: subjects::commit(&stream), stream, last: 0, payload, types }
    }

    /// The one that follows what stands there.
    pub(super) fn after(self, last: u64) -> Self {
        Self { last, ..self }
    }
}

#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    error: Option<serde_json::Value>,
}

/// The headers that the adapter sends.
fn headers_of(message: &Message) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("Content-Type", kernel::CONTENT_TYPE);
    map.insert("Nats-Msg-Id", format!("{}/{}", message.stream, clock::fresh_id("cmd_")));
    map.insert("Nats-Expected-Last-Subject-Sequence", message.last.to_string());
    map.insert(nats::headers::TYPES, message.types.as_str());
    map
}

/// One message, acknowledged.
pub(super) async fn publish(client: &Client, message: &mut Message) -> anyhow::Result<()> {
    let (subject, payload) = (message.subject.clone(), message.payload.clone());
    let reply = client.request_with_headers(subject, headers_of(message), payload).await?;
    message.last = sequence(&reply.payload)?;
    Ok(())
}

/// An atomic batch of different streams' messages, acknowledged. They stand next to each other.
pub(super) async fn publish_batch(client: &Client, messages: &mut [Message]) -> anyhow::Result<()> {
    let batch = client.new_inbox().rsplit('.').next().unwrap_or_default().to_owned();
    let count = messages.len();
    let mut answer = None;
    for (index, message) in messages.iter().enumerate() {
        let mut map = headers_of(message);
        map.insert("Nats-Batch-Id", batch.as_str());
        map.insert("Nats-Batch-Sequence", (index + 1).to_string());
        let (subject, payload) = (message.subject.clone(), message.payload.clone());
        if index + 1 < count {
            client.publish_with_headers(subject, map, payload).await?;
        } else {
            map.insert("Nats-Batch-Commit", "1");
            answer = Some(client.request_with_headers(subject, map, payload).await?);
        }
    }
    let last = sequence(&answer.context("a batch needs a message")?.payload)?;
    for (message, place) in messages.iter_mut().rev().zip((1..=last).rev()) {
        message.last = place;
    }
    Ok(())
}

fn sequence(payload: &[u8]) -> anyhow::Result<u64> {
    let ack: Ack = serde_json::from_slice(payload).context("the server's answer is not readable")?;
    ensure!(ack.error.is_none() && ack.seq > 0, "the server turned a raw message down: {:?}", ack.error);
    Ok(ack.seq)
}
