//! Reading a stream back: one request, then the archive in chunks, each confirmed when the server has stored it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use async_nats::{Client, Subject, Subscriber};
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::{BackupError, Description, RESTORED, refusal};
use crate::connection::Connection;
use crate::topology;

const ATTEMPT: &str = "restore";

/// Bytes per chunk. The server confirms one when every message in it is on the disk, and calls a restore stalled when that takes
/// five seconds; with a sync per message that is a few dozen messages even on a slow disk.
const CHUNK: usize = 16 * 1024;

/// Chunks on their way at once.
const WINDOW: usize = 16;

/// How long the server may take to store what is on its way.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to put the stream into service once it has everything; a cluster copies it to its other members first.
const FINISH: Duration = Duration::from_secs(600);

/// Makes a stream again from its archive, with the same messages under the same sequences. There must be none of that name.
///
/// `mark` names the restore; the log carries it from then on and so has a new identity. `stored` hears how many bytes of the archive
/// the server has taken so far.
///
/// # Errors
/// When the server refuses, or the archive cannot be read or does not hold what the description says. What is there then is a
/// part of the stream, to be removed.
pub async fn load(
    connection: &Connection,
    description: &Description,
    replicas: usize,
    mark: &str,
    archive: BoxStream<'_, io::Result<Bytes>>,
    stored: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), BackupError> {
    let stream = description.stream.as_str();
    let failed = BackupError::of(ATTEMPT, stream);
    let ask = json!({ "config": config(description, replicas, mark), "state": description.state });
    let subject = format!("$JS.API.STREAM.RESTORE.{stream}");
    let answer = connection.client.request(subject, ask.to_string().into()).await.map_err(|error| failed(&error))?;
    let answer: Value = serde_json::from_slice(&answer.payload).map_err(|error| failed(&error))?;
    if let Some(reason) = refusal(&answer) {
        return Err(failed(&reason));
    }
    let Some(to) = answer.get("deliver_subject").and_then(Value::as_str) else {
        return Err(failed(&"its answer has no `deliver_subject`"));
    };
    let inbox = connection.client.new_inbox();
    let answers = connection.client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let renewed = Box::pin(connection.renewed());
    let (to, inbox) = (Subject::from(to), Subject::from(inbox));
    let mut sending = Sending { client: &connection.client, to, inbox, answers, renewed, on_the_way: VecDeque::new() };
    let mut done = 0;
    let mut chunks = std::pin::pin!(even(archive));
    while let Some(chunk) = chunks.try_next().await.map_err(|error| failed(&error))? {
        if sending.on_the_way.len() == WINDOW {
            done += sending.confirmed().await.map_err(|reason| failed(&reason))?;
            stored(done);
        }
        sending.send(chunk).await.map_err(|reason| failed(&reason))?;
    }
    while !sending.on_the_way.is_empty() {
        done += sending.confirmed().await.map_err(|reason| failed(&reason))?;
        stored(done);
    }
    sending.end().await.map_err(|reason| failed(&reason))
}

/// The settings it had, with as many replicas as are wanted here; the log with the mark of this restore.
fn config(description: &Description, replicas: usize, mark: &str) -> Value {
    let mut config = description.config.clone();
    config["num_replicas"] = replicas.into();
    if description.stream == topology::EVENTS {
        config["metadata"][RESTORED] = mark.into();
    }
    config
}

/// The same bytes in chunks of one size.
fn even(archive: BoxStream<'_, io::Result<Bytes>>) -> impl futures::Stream<Item = io::Result<Bytes>> {
    futures::stream::unfold((archive, BytesMut::new()), |(mut archive, mut buffer)| async move {
        while buffer.len() < CHUNK {
            match archive.next().await {
                Some(Ok(bytes)) => buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Some((Err(error), (archive, BytesMut::new()))),
                None if buffer.is_empty() => return None,
                None => break,
            }
        }
        let chunk = buffer.split_to(buffer.len().min(CHUNK)).freeze();
        Some((Ok(chunk), (archive, buffer)))
    })
}

/// Chunks and their confirmations. Published from one place in order, so that the confirmations come in order, too.
struct Sending<'a> {
    client: &'a Client,
    to: Subject,
    inbox: Subject,
    answers: Subscriber,
    renewed: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Sizes of the chunks that are not confirmed yet.
    on_the_way: VecDeque<u64>,
}

impl Sending<'_> {
    async fn send(&mut self, chunk: Bytes) -> Result<(), String> {
        self.on_the_way.push_back(chunk.len() as u64);
        let sent = self.client.publish_with_reply(self.to.clone(), self.inbox.clone(), chunk).await;
        sent.map_err(|error| error.to_string())
    }

    async fn answer(&mut self, patience: Duration) -> Result<Bytes, String> {
        let answer = tokio::select! {
            biased;
            () = &mut self.renewed => return Err("the connection was lost".to_owned()),
            answer = tokio::time::timeout(patience, self.answers.next()) => answer,
        };
        match answer {
            Ok(Some(message)) if message.status.is_none() => Ok(message.payload),
            Ok(Some(_)) => Err("the server does not take it any more; its log may say why".to_owned()),
            Ok(None) => Err("the connection closed".to_owned()),
            Err(_) => Err(format!("no word from the server for {} s", patience.as_secs())),
        }
    }

    /// Waits for the oldest chunk on its way; its size.
    async fn confirmed(&mut self) -> Result<u64, String> {
        let answer = self.answer(PATIENCE).await?;
        // Only a complaint has a body.
        if !answer.is_empty() {
            let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
            return Err(refusal(&answer).unwrap_or_else(|| "the server gave it up".to_owned()));
        }
        self.on_the_way.pop_front().ok_or_else(|| "the server confirms what was not sent".to_owned())
    }

    /// An empty chunk is the end; its answer describes the stream.
    async fn end(mut self) -> Result<(), String> {
        self.send(Bytes::new()).await?;
        let answer = self.answer(FINISH).await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        refusal(&answer).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_are_even_and_carry_the_same_bytes() {
        let bytes: Vec<u8> = (0..CHUNK * 2 + 5).map(|n| (n % 251) as u8).collect();
        let pieces = bytes.chunks(1_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>();
        let chunks: Vec<Bytes> = even(futures::stream::iter(pieces).boxed()).try_collect().await.expect("no errors");
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [CHUNK, CHUNK, 5]);
        assert_eq!(chunks.concat(), bytes);
    }

    #[test]
    fn only_the_log_is_marked_and_replicas_are_as_wanted_here() {
        let of = |stream: &str| Description {
            stream: stream.to_owned(),
            config: json!({"num_replicas": 1, "metadata": {"airstream-format": "1"}}),
            state: Value::Null,
        };
        let log = config(&of(topology::EVENTS), 3, "m");
        assert_eq!(log, json!({"num_replicas": 3, "metadata": {"airstream-format": "1", RESTORED: "m"}}));
        assert_eq!(config(&of(topology::TASKS), 1, "m")["metadata"], json!({"airstream-format": "1"}));
    }
}
