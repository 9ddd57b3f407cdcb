//! The contract of [`Log`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use kernel::{CommandId, Draft, Fingerprint, NewEvent, Position, PrincipalId, StreamName, Timestamp};
use tokio::time::Instant;

use super::{Coins, fresh_stream};
use crate::{Append, AppendError, Filter, Freshness, Log, LogError, Reader, Recorded};

/// A commit of one event, ready to be appended.
#[must_use]
pub fn commit(stream: &StreamName, id: &str, version_before: u64, expected: Position) -> Append {
    let draft = Draft {
        stream: stream.clone(),
        id: CommandId::new(id).unwrap(),
        command: "take".to_owned(),
        fingerprint: Fingerprint::of("take", b"{}"),
        version_before,
        at: Timestamp::UNIX_EPOCH,
        actor: PrincipalId::new("contract").unwrap(),
        correlation: id.to_owned(),
        causation: id.to_owned(),
        traceparent: None,
        events: vec![NewEvent {
            type_name: "till.taken",
            schema_version: 1,
            data: kernel::encode(&Coins { coins: 1 }),
        }],
    };
    let payload = Bytes::from(draft.to_bytes());
    Append { stream: stream.clone(), id: draft.id, expected, payload, types: "till.taken".to_owned() }
}

/// Runs the whole suite. The log may have other streams in it and may be written by others meanwhile.
pub async fn suite(log: Arc<dyn Log>) {
    a_guard_lets_exactly_the_next_commit_through(&*log).await;
    a_repeat_writes_nothing_and_is_never_called_a_failure(&log).await;
    the_leader_knows_what_was_written_and_any_other_learns_it(&*log).await;
    many_writers_of_one_stream_get_one_winner(&log).await;
    many_streams_are_written_side_by_side(&log).await;
    a_long_stream_is_read_page_by_page(&*log).await;
    reading_from_a_position_has_no_holes(&*log).await;
    a_filter_shows_only_what_it_admits(&*log).await;
    a_reader_sees_what_is_written_later(&*log).await;
}

async fn whole(log: &dyn Log, stream: &StreamName, fresh: Freshness) -> Vec<Recorded> {
    let (mut all, mut after) = (Vec::new(), Position::START);
    loop {
        let page = log.read_stream(stream, after, fresh).await.unwrap();
        after = page.commits.last().map_or(after, |last| last.position);
        all.extend(page.commits);
        if !page.more {
            return all;
        }
    }
}

async fn a_guard_lets_exactly_the_next_commit_through(log: &dyn Log) {
    let stream = fresh_stream("till");
    let first = log.append(commit(&stream, "a", 0, Position::START)).await.unwrap();
    let stale = log.append(commit(&stream, "b", 0, Position::START)).await;
    assert_eq!(stale, Err(AppendError::Conflict), "a second beginning was accepted");
    let second = log.append(commit(&stream, "b", 1, first)).await.unwrap();
    assert!(second > first);
    assert_eq!(log.append(commit(&stream, "c", 1, first)).await, Err(AppendError::Conflict), "a stale guard held");

    let read = log.at(second).await.unwrap().expect("what was written can be read");
    assert_eq!((read.position, read.stream.as_ref()), (second, Some(&stream)));
    assert_eq!(read.commit().unwrap().id(), "b");
    assert!(log.at(log.head().await.unwrap().next()).await.unwrap().is_none_or(|later| later.position > second));
    assert_eq!(ids(&whole(log, &stream, Freshness::Leader).await), ["a", "b"]);
    assert!(whole(log, &fresh_stream("till"), Freshness::Any).await.is_empty(), "an unwritten stream has commits");
}

fn ids(commits: &[Recorded]) -> Vec<String> {
    commits.iter().map(|read| read.commit().unwrap().id().to_owned()).collect()
}

/// What a writer does that has not heard the answer. One log says that the guard is stale, another one that it has seen
/// the id: both send the writer to the stream's tail. What none may say is "written", elsewhere, or "not written, give up".
async fn a_repeat_writes_nothing_and_is_never_called_a_failure(log: &Arc<dyn Log>) {
    let settled_by_the_tail = |outcome: &Result<Position, AppendError>| {
        assert!(matches!(outcome, Err(AppendError::Conflict | AppendError::Ambiguous(_))), "{outcome:?}");
    };
    let stream = fresh_stream("till");
    let first = log.append(commit(&stream, "a", 0, Position::START)).await.unwrap();
    settled_by_the_tail(&log.append(commit(&stream, "a", 0, Position::START)).await);
    let second = log.append(commit(&stream, "b", 1, first)).await.unwrap();
    settled_by_the_tail(&log.append(commit(&stream, "a", 0, Position::START)).await);
    settled_by_the_tail(&log.append(commit(&stream, "b", 1, first)).await);
    // At once, as when two writers believe that they own the stream: whichever is first.
    let racing = fresh_stream("till");
    let outcomes = join_all((0..8).map(|_| log.append(commit(&racing, "r", 0, Position::START)))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    outcomes.iter().filter(|outcome| outcome.is_err()).for_each(settled_by_the_tail);
    // In a group: the neighbours of a repeat are written, and only once.
    let streams: Vec<StreamName> = (0..60).map(|_| fresh_stream("till")).collect();
    let mut writes: Vec<Append> = streams.iter().map(|other| commit(other, "n", 0, Position::START)).collect();
    writes.insert(30, commit(&stream, "b", 1, first));
    let outcomes = join_all(writes.into_iter().map(|write| log.append(write))).await;
    settled_by_the_tail(&outcomes[30]);
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 60, "{outcomes:?}");
    assert_eq!(ids(&whole(&**log, &stream, Freshness::Leader).await), ["a", "b"]);
    assert_eq!(ids(&whole(&**log, &racing, Freshness::Leader).await), ["r"]);
    assert!(second > first);
}

/// A replica may lag behind, but shows no more than a beginning of the truth, and in the end all of it.
async fn the_leader_knows_what_was_written_and_any_other_learns_it(log: &dyn Log) {
    let stream = fresh_stream("till");
    let (mut last, mut written) = (Position::START, Vec::new());
    for version in 0..40 {
        let id = format!("f{version}");
        last = log.append(commit(&stream, &id, version, last)).await.unwrap();
        written.push(id);
        let seen = ids(&whole(log, &stream, Freshness::Any).await);
        assert!(written.starts_with(&seen), "{seen:?} is no beginning of {written:?}");
        let tail = log.read_stream(&stream, Position::at(last.sequence() - 1), Freshness::Leader).await.unwrap();
        assert_eq!(ids(&tail.commits), written[written.len() - 1..], "the leader does not know what it took");
    }
    let all = async { while ids(&whole(log, &stream, Freshness::Any).await) != written {} };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("a replica catches up");
}

async fn many_writers_of_one_stream_get_one_winner(log: &Arc<dyn Log>) {
    let stream = fresh_stream("till");
    let tries = (0..20).map(|n| {
        let (log, commit) = (Arc::clone(log), commit(&stream, &format!("w{n}"), 0, Position::START));
        async move { log.append(commit).await }
    });
    let outcomes = join_all(tries).await;
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(won, 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(AppendError::Conflict))), "{outcomes:?}");
}

async fn many_streams_are_written_side_by_side(log: &Arc<dyn Log>) {
    let streams: Vec<StreamName> = (0..300).map(|_| fresh_stream("till")).collect();
    // One of them is stale: a group must not drag its neighbours down with it.
    let taken = &streams[150];
    log.append(commit(taken, "before", 0, Position::START)).await.unwrap();
    let writes = streams.iter().map(|stream| log.append(commit(stream, "x", 0, Position::START)));
    let outcomes = join_all(writes).await;
    for (stream, outcome) in streams.iter().zip(outcomes) {
        if stream == taken {
            assert_eq!(outcome, Err(AppendError::Conflict));
            continue;
        }
        let position = outcome.unwrap();
        let found = log.at(position).await.unwrap().expect("a position that was handed out");
        assert_eq!(found.stream.as_ref(), Some(stream), "a position belongs to another stream's commit");
    }
}

async fn a_long_stream_is_read_page_by_page(log: &dyn Log) {
    let stream = fresh_stream("till");
    let mut expected = Position::START;
    for version in 0..12 {
        expected = log.append(commit(&stream, &format!("p{version}"), version, expected)).await.unwrap();
    }
    let all = whole(log, &stream, Freshness::Leader).await;
    let versions: Vec<u64> = all.iter().map(|read| read.commit().unwrap().version_after()).collect();
    assert_eq!(versions, (1..=12).collect::<Vec<_>>());
    let tail = log.read_stream(&stream, all[10].position, Freshness::Leader).await.unwrap();
    assert_eq!(tail.commits.len(), 1);
}

async fn reading_from_a_position_has_no_holes(log: &dyn Log) {
    let head = log.head().await.unwrap();
    let reader = log.read(Position::START, &Filter::default()).await.unwrap();
    assert!(reader.waiting >= head.sequence(), "the reader knows how much is waiting");
    let mut commits = Reading::of(log, Position::START, Filter::default(), reader);
    for expected in 1..=head.sequence() {
        let read = commits.next().await;
        assert_eq!(read.position, Position::at(expected), "a hole in the log");
    }
}

async fn a_filter_shows_only_what_it_admits(log: &dyn Log) {
    let (one, other) = (fresh_stream("till"), fresh_stream("till"));
    let first = log.append(commit(&one, "f1", 0, Position::START)).await.unwrap();
    log.append(commit(&other, "f2", 0, Position::START)).await.unwrap();
    let last = log.append(commit(&one, "f3", 1, first)).await.unwrap();
    let filter =
        Filter { tenant: Some(one.tenant.clone()), category: Some(one.category.clone()), id: Some(one.id.clone()) };
    let reader = log.read(Position::START, &filter).await.unwrap();
    assert_eq!(reader.waiting, 2);
    let mut commits = Reading::of(log, Position::START, filter, reader);
    assert_eq!(commits.next().await.position, first);
    let read = commits.next().await;
    assert_eq!((read.position, read.remaining), (last, 0));
    let nobody = Filter { category: Some(kernel::Category::new("nobody").unwrap()), ..Filter::default() };
    assert_eq!(log.read(Position::START, &nobody).await.unwrap().waiting, 0);
}

async fn a_reader_sees_what_is_written_later(log: &dyn Log) {
    let stream = fresh_stream("till");
    let filter = Filter { id: Some(stream.id.clone()), ..Filter::default() };
    let head = log.head().await.unwrap();
    let reader = log.read(head, &filter).await.unwrap();
    let mut commits = Reading::of(log, head, filter, reader);
    let position = log.append(commit(&stream, "later", 0, Position::START)).await.unwrap();
    assert_eq!(commits.next().await.position, position);
}

/// A read as whoever follows the log reads: it may break at any time, and is begun again where it was.
struct Reading<'a> {
    log: &'a dyn Log,
    after: Position,
    filter: Filter,
    commits: BoxStream<'static, Result<Recorded, LogError>>,
}

impl<'a> Reading<'a> {
    fn of(log: &'a dyn Log, after: Position, filter: Filter, begun: Reader) -> Self {
        Self { log, after, filter, commits: begun.commits }
    }

    async fn next(&mut self) -> Recorded {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let read = tokio::time::timeout_at(until, self.commits.next()).await.expect("a commit in time");
            let broken = match read {
                Some(Ok(read)) => {
                    self.after = read.position;
                    return read;
                }
                Some(Err(error)) => error.to_string(),
                None => "it ended".to_owned(),
            };
            assert!(Instant::now() < until, "a read breaks again and again: {broken}");
            match self.log.read(self.after, &self.filter).await {
                Ok(begun) => self.commits = begun.commits,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}
