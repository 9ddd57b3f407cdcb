//! The walk along the whole log: a reader that does not trust silence.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use kernel::Position;

use crate::retry::Backoff;
use crate::{Filter, Log, LogError, Recorded};

/// How long a log may say nothing before it is asked, and how long what it then has may take to arrive. A replica that
/// catches up is given that time, too.
const SILENCE: Duration = Duration::from_secs(2);

/// Everything after a position, in order, until something is wrong.
///
/// A message that was lost on the way shows as a hole when the next one arrives; the newest one has no next. So when nothing
/// has arrived for a while the log is asked for its head, and when nothing arrives for as long again although there is
/// something, the read has lost it and ends with an error.
///
/// # Errors
/// [`LogError`] when the read could not begin.
pub async fn everything(
    log: &Arc<dyn Log>,
    after: Position,
) -> Result<BoxStream<'static, Result<Recorded, LogError>>, LogError> {
    let reader = log.read(after, &Filter::default()).await?;
    let state = Some((reader.commits, Arc::clone(log), after, Position::START));
    let stream = futures::stream::unfold(state, |state| async move {
        let (mut commits, log, mut at, mut head) = state?;
        loop {
            // Under load the next one is there already, and needs no timer.
            let next = match commits.next().now_or_never() {
                Some(next) => Ok(next),
                None => tokio::time::timeout(SILENCE, commits.next()).await,
            };
            let next = match next {
                Ok(next) => next,
                Err(_) if at < head => {
                    let reason = format!("the log is at {head}, and nothing has arrived after {at}");
                    return Some((Err(LogError { attempt: "walk along the log", reason }), None));
                }
                // What arrives meanwhile is as good an answer.
                Err(_) => tokio::select! {
                    biased;
                    next = commits.next() => next,
                    asked = log.head() => {
                        // A log that cannot be asked does not answer reads either, and those say so themselves.
                        head = asked.unwrap_or(head);
                        continue;
                    }
                },
            };
            if let Some(Ok(commit)) = &next {
                at = commit.position;
            }
            return next.map(|next| (next, Some((commits, log, at, head))));
        }
    });
    Ok(stream.boxed())
}

/// So often in a row a read may break, or fail to begin, without having brought anything.
const TRIES: u32 = 8;

/// As [`everything`], for whoever must come to an end: a read that breaks is begun again where it was. It ends with an error
/// when that has been of no use several times in a row.
#[must_use]
pub fn everything_at_last(log: &Arc<dyn Log>, after: Position) -> BoxStream<'static, Result<Recorded, LogError>> {
    let state = Some((None::<BoxStream<'static, _>>, Arc::clone(log), after));
    let stream = futures::stream::unfold(state, |state| async move {
        let (mut commits, log, at) = state?;
        let (mut tries, mut backoff) = (0, Backoff::new(Duration::from_millis(50), Duration::from_secs(2)));
        loop {
            let read = match &mut commits {
                Some(commits) => commits.next().await,
                None => match everything(&log, at).await {
                    Ok(begun) => {
                        commits = Some(begun);
                        continue;
                    }
                    Err(error) => Some(Err(error)),
                },
            };
            let error = match read {
                Some(Ok(commit)) => {
                    let at = commit.position;
                    return Some((Ok(commit), Some((commits, log, at))));
                }
                Some(Err(error)) => error,
                None => LogError { attempt: "read the log", reason: "the read ended".to_owned() },
            };
            if tries >= TRIES {
                return Some((Err(error), None));
            }
            tracing::warn!(%error, after = at.sequence(), "a read of the log is begun again where it broke");
            commits = None;
            tries += 1;
            backoff.wait().await;
        }
    });
    stream.boxed()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests report by panicking")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use kernel::StreamName;

    use super::*;
    use crate::contract::fresh_stream;
    use crate::contract::log::commit;
    use crate::memory::MemoryLog;
    use crate::{Append, AppendError, Freshness, Page, Reader};

    /// A log each of whose reads breaks after so many commits.
    struct Breaking {
        inner: MemoryLog,
        after: usize,
        reads: AtomicUsize,
    }

    #[async_trait]
    impl Log for Breaking {
        async fn append(&self, commit: Append) -> Result<Position, AppendError> {
            self.inner.append(commit).await
        }

        async fn read_stream(&self, stream: &StreamName, after: Position, fresh: Freshness) -> Result<Page, LogError> {
            self.inner.read_stream(stream, after, fresh).await
        }

        async fn at(&self, position: Position) -> Result<Option<Recorded>, LogError> {
            self.inner.at(position).await
        }

        async fn read(&self, after: Position, filter: &Filter) -> Result<Reader, LogError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let Reader { waiting, commits } = self.inner.read(after, filter).await?;
            let broken = LogError { attempt: "read", reason: "it broke".to_owned() };
            let commits = commits.take(self.after).chain(futures::stream::iter([Err(broken)]));
            Ok(Reader { waiting, commits: commits.boxed() })
        }

        async fn identity(&self) -> Result<String, LogError> {
            self.inner.identity().await
        }

        async fn head(&self) -> Result<Position, LogError> {
            self.inner.head().await
        }
    }

    async fn breaking(after: usize) -> (Arc<Breaking>, Arc<dyn Log>) {
        let log = Arc::new(Breaking { inner: MemoryLog::new(), after, reads: AtomicUsize::new(0) });
        for n in 0..30 {
            log.append(commit(&fresh_stream("till"), &format!("c{n}"), 0, Position::START)).await.unwrap();
        }
        (Arc::clone(&log), log)
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_breaks_goes_on_where_it_was_however_often_while_it_brings_something() {
        let (breaking, log) = breaking(1).await;
        let read: Vec<_> = everything_at_last(&log, Position::START).take(30).collect().await;
        let positions: Vec<u64> = read.into_iter().map(|commit| commit.unwrap().position.sequence()).collect();
        assert_eq!(positions, (1..=30).collect::<Vec<_>>());
        assert_eq!(breaking.reads.load(Ordering::Relaxed), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_never_brings_anything_is_given_up() {
        let (breaking, log) = breaking(0).await;
        let read: Vec<_> = everything_at_last(&log, Position::START).collect().await;
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].as_ref().unwrap_err().reason, "it broke");
        assert_eq!(breaking.reads.load(Ordering::Relaxed), 1 + TRIES as usize);
    }
}
