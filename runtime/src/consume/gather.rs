//! Batches out of a stream of commits: as large as what is known to be waiting, and no later than that.

use futures::stream::{BoxStream, Stream};
use futures::{FutureExt, StreamExt};

use crate::{LogError, Recorded};

/// Some commits in order, and what ended the read after them.
pub(super) struct Gathered {
    pub(super) commits: Vec<Recorded>,
    pub(super) failed: Option<LogError>,
}

/// Gathers up to `most` commits. As long as the log says that more are waiting behind the last one, waiting for them costs
/// less than handling few at a time; a commit that is the newest one is handed over at once.
pub(super) fn gather(
    commits: BoxStream<'static, Result<Recorded, LogError>>,
    most: usize,
) -> impl Stream<Item = Gathered> + Send {
    futures::stream::unfold(Some(commits), move |commits| async move {
        let mut stream = commits?;
        let mut gathered = Gathered { commits: Vec::new(), failed: None };
        loop {
            let more_behind = gathered.commits.last().is_none_or(|last: &Recorded| last.remaining > 0);
            let next = match gathered.commits.len() {
                full if full >= most => None,
                _ if more_behind => Some(stream.next().await),
                _ => stream.next().now_or_never(),
            };
            match next {
                None => return Some((gathered, Some(stream))),
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
