//! Batches out of a stream of commits: as large as what is known to be waiting, and no later than that.

use std::time::Duration;

use futures::stream::{BoxStream, Stream};
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use crate::{LogError, Recorded};

/// Some commits in order, and what ended the read after them.
pub(super) struct Gathered {
    pub(super) commits: Vec<Recorded>,
    pub(super) failed: Option<LogError>,
}

/// Gathers up to `most` commits. As long as the log says that more are waiting behind the last one, waiting for them costs
/// less than handling few at a time. A commit that is the newest one is handed over at once, unless the batch before was
/// handed over less than `pace` ago: a thousand commits a second are then hundreds of transactions, not a thousand.
pub(super) fn gather(
    commits: BoxStream<'static, Result<Recorded, LogError>>,
    most: usize,
    pace: Duration,
) -> impl Stream<Item = Gathered> + Send {
    futures::stream::unfold(Some((commits, None)), move |state| async move {
        let (mut stream, before): (_, Option<Instant>) = state?;
        let mut gathered = Gathered { commits: Vec::new(), failed: None };
        loop {
            let more_behind = gathered.commits.last().is_none_or(|last: &Recorded| last.remaining > 0);
            let next = match (gathered.commits.len(), before.map(|before| before + pace)) {
                (full, _) if full >= most => None,
                _ if more_behind => Some(stream.next().await),
                (_, Some(not_before)) => tokio::time::timeout_at(not_before, stream.next()).await.ok(),
                (_, None) => stream.next().now_or_never(),
            };
            match next {
                None => return Some((gathered, Some((stream, Some(Instant::now()))))),
                Some(Some(Ok(commit))) => gathered.commits.push(commit),
                Some(Some(Err(error))) => {
                    gathered.failed = Some(error);
                    return Some((gathered, None));
                }
                Some(None) if gathered.commits.is_empty() => return None,
                Some(None) => return Some((gathered, None)),
            }
        }
    })
}
