//! Writing a stream out: one request, then chunks, each acknowledged so that the server does not send more than we have taken.

use std::pin::Pin;
use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};

use super::{BackupError, Description, refusal};
use crate::connection::Connection;

const ATTEMPT: &str = "copy";

/// Bytes per chunk. The server takes 1 KiB to 1 MiB.
const CHUNK: usize = 128 * 1024;

/// Bytes on their way at once: what a copy takes of our memory, however long the stream is.
const WINDOW: usize = 4 * 1024 * 1024;

/// Silence that means the server has gone. It gives up on us after five seconds itself.
const SILENCE: Duration = Duration::from_secs(20);

/// A stream on its way out.
pub struct Snapshot {
    /// The stream when the copy began. Messages written later are not in it.
    pub description: Description,
    /// The archive, piece by piece. A piece is acknowledged when the next one is asked for. It ends after the last piece, or with
    /// an error; what came before an error is no backup.
    pub pieces: BoxStream<'static, Result<Bytes, BackupError>>,
}

/// Begins to copy a stream. It may be written to meanwhile.
///
/// # Errors
/// When there is no such stream, or the server refuses.
pub async fn save(connection: &Connection, stream: &'static str) -> Result<Snapshot, BackupError> {
    let failed = BackupError::of(ATTEMPT, stream);
    let inbox = connection.client.new_inbox();
    let renewed = Box::pin(connection.renewed());
    let chunks = connection.client.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let ask = json!({ "deliver_subject": inbox, "no_consumers": true, "chunk_size": CHUNK, "window_size": WINDOW });
    let subject = format!("$JS.API.STREAM.SNAPSHOT.{stream}");
    let answer = connection.client.request(subject, ask.to_string().into()).await.map_err(|error| failed(&error))?;
    let answer: Value = serde_json::from_slice(&answer.payload).map_err(|error| failed(&error))?;
    if let Some(reason) = refusal(&answer) {
        return Err(failed(&reason));
    }
    let part = |name: &str| answer.get(name).cloned().ok_or_else(|| failed(&format!("its answer has no `{name}`")));
    let description = Description { stream: stream.to_owned(), config: part("config")?, state: part("state")? };
    let copy = Copy { client: connection.client.clone(), stream, chunks, renewed, taken: None, count: 0, ended: false };
    let pieces = futures::stream::unfold(copy, |mut copy| async move {
        if copy.ended {
            return None;
        }
        let next = copy.next().await.transpose()?;
        copy.ended = next.is_err();
        Some((next, copy))
    });
    Ok(Snapshot { description, pieces: pieces.boxed() })
}

struct Copy {
    client: Client,
    stream: &'static str,
    chunks: Subscriber,
    renewed: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Where the chunk in the caller's hands is to be acknowledged.
    taken: Option<async_nats::Subject>,
    count: u64,
    ended: bool,
}

impl Copy {
    /// The next chunk; `None` after the last one.
    async fn next(&mut self) -> Result<Option<Bytes>, BackupError> {
        let failed = BackupError::of(ATTEMPT, self.stream);
        if let Some(reply) = self.taken.take() {
            self.client.publish(reply, Bytes::new()).await.map_err(|error| failed(&error))?;
        }
        let next = tokio::select! {
            biased;
            () = &mut self.renewed => return Err(failed(&"the connection was lost")),
            next = tokio::time::timeout(SILENCE, self.chunks.next()) => next,
        };
        let message = match next {
            Ok(Some(message)) => message,
            Ok(None) => return Err(failed(&"the connection closed")),
            Err(_) => return Err(failed(&format!("no word from the server for {} s", SILENCE.as_secs()))),
        };
        if message.payload.is_empty() {
            return end(&message).map_err(|reason| failed(&reason));
        }
        self.count += 1;
        if let Some(reply) = message.reply {
            // `….<bytes>.<number>`: what was lost on the way leaves a gap.
            let mut tokens = reply.as_str().rsplit('.');
            let (number, bytes) = (tokens.next().unwrap_or_default(), tokens.next().unwrap_or_default());
            if number != self.count.to_string() || bytes != message.payload.len().to_string() {
                return Err(failed(&format!("chunk {} was lost on the way", self.count)));
            }
            self.taken = Some(reply);
        }
        Ok(Some(message.payload))
    }
}

/// What an empty message means: the end, unless it says otherwise.
fn end(message: &Message) -> Result<Option<Bytes>, String> {
    match message.status {
        None => Ok(None),
        Some(status) if status == StatusCode::OK || status.as_u16() == 204 => Ok(None),
        Some(status) => {
            Err(format!("the server broke off: {status} {}", message.description.as_deref().unwrap_or_default()))
        }
    }
}
