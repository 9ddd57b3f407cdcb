//! The contract of [`Snapshots`], and what snapshots must never change: answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kernel::{Position, StreamName};
use serde_json::{Value, json};

use super::executing::{ask, executor_with_snapshots};
use super::small_pages::SmallPages;
use super::{Till, fresh_stream};
use crate::{
    Answer, Commands, CommitIndex, Executor, Log, Snapshot, SnapshotCache, SnapshotError, SnapshotKey, Snapshots, clock,
};

/// Checks a store.
pub async fn suite(store: &dyn Snapshots) {
    let snapshot = |version: u64, body: &[u8]| Snapshot {
        version,
        position: Position::at(version * 10),
        body: Bytes::copy_from_slice(body),
    };
    let key = SnapshotKey { stream: fresh_stream("till"), log: "log_1".to_owned(), fold: "a".to_owned() };
    let load = async |key: &SnapshotKey| store.load(key).await.unwrap();
    assert_eq!(load(&key).await, None);
    // Any bytes, also many.
    let large = snapshot(2, &[0, 255, b'\'', b'\\'].repeat(300_000));
    store.store(&key, &large).await.unwrap();
    assert_eq!(load(&key).await, Some(large.clone()));
    // An older one comes late, and a newer one in time.
    store.store(&key, &snapshot(1, b"old")).await.unwrap();
    assert_eq!(load(&key).await, Some(large), "a late snapshot replaced a newer one");
    store.store(&key, &snapshot(3, b"new")).await.unwrap();
    assert_eq!(load(&key).await, Some(snapshot(3, b"new")));
    // Other code, other streams, and other tenants have their own.
    let other_code = SnapshotKey { fold: "b".to_owned(), ..key.clone() };
    let other_stream = SnapshotKey { stream: fresh_stream("till"), ..key.clone() };
    let other_tenant = StreamName::new("other", "till", key.stream.id.as_str()).unwrap();
    let other_tenant = SnapshotKey { stream: other_tenant, ..key.clone() };
    for other in [&other_code, &other_stream, &other_tenant] {
        assert_eq!(load(other).await, None, "{other:?} got another's snapshot");
        store.store(other, &snapshot(1, b"other")).await.unwrap();
    }
    assert_eq!(load(&key).await, Some(snapshot(3, b"new")));
    // Another log's is never seen, however new it is, and gives way.
    let other_log = SnapshotKey { log: "log_2".to_owned(), ..key.clone() };
    assert_eq!(load(&other_log).await, None, "a snapshot of another log");
    store.store(&other_log, &snapshot(1, b"restored")).await.unwrap();
    assert_eq!(load(&other_log).await, Some(snapshot(1, b"restored")));
    assert_eq!(load(&key).await, None);
    // What was removed is gone, whether or not it was there, and nothing else is.
    store.remove(&key).await.unwrap();
    assert_eq!(load(&other_log).await, Some(snapshot(1, b"restored")), "another log's snapshot was removed");
    for _ in 0..2 {
        store.remove(&other_log).await.unwrap();
    }
    assert_eq!(load(&other_log).await, None);
    assert_eq!(load(&other_code).await, Some(snapshot(1, b"other")));
}

struct World {
    log: Arc<dyn Log>,
    index: Arc<dyn CommitIndex>,
    store: Arc<dyn Snapshots>,
    identity: String,
    /// The code that folds: another one for each story, so that stories share a store.
    fold: String,
}

impl World {
    /// An executor that has nothing in memory and takes a snapshot every three commits.
    fn cold(&self) -> Executor {
        self.cold_as(&self.identity, &self.fold)
    }

    fn cold_as(&self, identity: &str, fold: &str) -> Executor {
        let cache = SnapshotCache::new(Arc::clone(&self.store), identity.to_owned(), fold.to_owned(), 3);
        executor_with_snapshots(&self.log, &self.index, Some(cache))
    }

    fn key(&self, stream: &StreamName) -> SnapshotKey {
        SnapshotKey { stream: stream.clone(), log: self.identity.clone(), fold: self.fold.clone() }
    }

    /// The stream's snapshot, once it is there with this version.
    async fn kept(&self, stream: &StreamName, version: u64) -> Snapshot {
        let wait = async {
            loop {
                match self.store.load(&self.key(stream)).await.unwrap() {
                    Some(snapshot) if snapshot.version == version => return snapshot,
                    _ => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), wait).await;
        found.unwrap_or_else(|_| panic!("no snapshot of version {version} was stored"))
    }

    /// A till into which so many coins were put one by one, with command ids `c0`, `c1` …; and its snapshot.
    async fn till(&self, commits: u64) -> (StreamName, Snapshot) {
        let (stream, executor) = (fresh_stream("till"), self.cold());
        for n in 0..commits {
            executor.execute(ask(&stream, "take", 1, Some(&format!("c{n}")))).await.unwrap();
            // One after the other, so that each snapshot finds a free place.
            if (n + 1) % 3 == 0 {
                self.kept(&stream, n + 1).await;
            }
        }
        let snapshot = self.kept(&stream, commits - commits % 3).await;
        (stream, snapshot)
    }

    async fn replace(&self, stream: &StreamName, snapshot: &Snapshot) {
        let key = self.key(stream);
        self.store.remove(&key).await.unwrap();
        self.store.store(&key, snapshot).await.unwrap();
    }
}

/// A snapshot with something else in its body: recent ids, bytes, state.
fn changed(snapshot: &Snapshot, change: impl FnOnce(&mut Value)) -> Snapshot {
    let mut body: Value = serde_json::from_slice(&snapshot.body).unwrap();
    change(&mut body);
    Snapshot { body: body.to_string().into(), ..snapshot.clone() }
}

/// Checks that executors use snapshots exactly when they may.
pub async fn using(log: Arc<dyn Log>, index: Arc<dyn CommitIndex>, store: Arc<dyn Snapshots>) {
    let identity = log.identity().await.unwrap();
    let fold = clock::fresh_id("code_");
    let world = World { log: Arc::new(SmallPages(log)), index, store, identity, fold };
    a_long_stream_begins_where_its_snapshot_ends(&world).await;
    other_code_and_another_log_see_nothing_of_it(&world).await;
    a_snapshot_that_the_log_does_not_confirm_is_replaced(&world).await;
    command_ids_are_known_after_loading_a_snapshot(&world).await;
    snapshots_may_vanish_at_any_time(&world).await;
    a_foreign_message_at_the_end_is_no_part_of_a_snapshot(&world).await;
    a_store_that_fails_or_hangs_changes_no_answer(&world).await;
}

/// Puts a lie into a snapshot that is right in everything else: whoever believes it has used it.
async fn lie(world: &World) -> StreamName {
    let (stream, snapshot) = world.till(10).await;
    assert_eq!(snapshot.version, 9);
    world.replace(&stream, &changed(&snapshot, |body| body[2] = json!(1_009))).await;
    stream
}

async fn a_long_stream_begins_where_its_snapshot_ends(world: &World) {
    let stream = lie(world).await;
    let executor = world.cold();
    let seen = executor.inspect::<Till>(&stream).await.unwrap();
    assert_eq!((seen.state, seen.version), (1_010, 10), "its first nine commits were folded all the same");
    // Also for a command; and the next snapshot stands on this one.
    let other = world.cold();
    assert_eq!(other.execute(ask(&stream, "give", 1_000, None)).await.unwrap().version, 11);
    other.execute(ask(&stream, "take", 5, None)).await.unwrap();
    world.kept(&stream, 12).await;
    assert_eq!(world.cold().inspect::<Till>(&stream).await.unwrap().state, 15);
}

async fn other_code_and_another_log_see_nothing_of_it(world: &World) {
    let stream = lie(world).await;
    for (identity, fold) in [("log_of_another", world.fold.as_str()), (&world.identity, "other code")] {
        let seen = world.cold_as(identity, fold).inspect::<Till>(&stream).await.unwrap();
        assert_eq!((seen.state, seen.version), (10, 10), "{identity} {fold}");
    }
}

async fn a_snapshot_that_the_log_does_not_confirm_is_replaced(world: &World) {
    let (stream, good) = world.till(9).await;
    let (_, others) = world.till(9).await;
    let head = world.log.head().await.unwrap();
    let lie = |body: &mut Value| body[2] = json!(1_000_000);
    let wrong = [
        ("garbage", Snapshot { body: Bytes::from_static(b"\x00garbage"), ..good.clone() }),
        ("cut off", Snapshot { body: good.body.slice(..good.body.len() - 1), ..good.clone() }),
        ("a state of another type", changed(&good, |body| body[2] = json!({ "coins": 9 }))),
        ("too high a version", Snapshot { version: 10, ..changed(&good, lie) }),
        ("too low a version", Snapshot { version: 8, ..changed(&good, lie) }),
        (
            "beyond the head, as after a restore",
            Snapshot { position: Position::at(head.sequence() + 7), ..changed(&good, lie) },
        ),
        ("another stream's", changed(&others, lie)),
        (
            "another commit at its place",
            changed(&good, |body| {
                lie(body);
                body[0]["ring"][8][0] = json!(1);
            }),
        ),
        (
            "no command ids",
            changed(&good, |body| {
                lie(body);
                body[0]["ring"] = json!([]);
            }),
        ),
    ];
    for (what, snapshot) in wrong {
        world.replace(&stream, &snapshot).await;
        let seen = world.cold().inspect::<Till>(&stream).await.unwrap();
        assert_eq!((seen.state, seen.version), (9, 9), "{what}");
        // It was deleted, or the right one of the same position could not have taken its place.
        assert_eq!(world.kept(&stream, 9).await, good, "{what}");
    }
}

async fn command_ids_are_known_after_loading_a_snapshot(world: &World) {
    // Few enough that memory knows every id and nobody is asked; and so many that the first ones have been forgotten.
    for commits in [10, 150] {
        let (stream, _) = world.till(commits).await;
        for n in 0..commits {
            if n > 20 && n % 16 != 0 {
                continue;
            }
            let executor = world.cold();
            let again = executor.execute(ask(&stream, "take", 1, Some(&format!("c{n}")))).await.unwrap();
            assert!(again.repeated && again.version == n + 1, "c{n} of {commits} counted twice: {again:?}");
            let other = executor.execute(ask(&stream, "take", 2, Some(&format!("c{n}")))).await.unwrap_err();
            assert_eq!(other.code, "command_id_reused");
        }
        let executor = world.cold();
        let fresh = executor.execute(ask(&stream, "take", 1, Some("fresh"))).await.unwrap();
        assert_eq!((fresh.repeated, fresh.version), (false, commits + 1));
        let again = world.cold().execute(ask(&stream, "take", 1, Some("fresh"))).await.unwrap();
        assert_eq!(Answer { repeated: false, ..again }, fresh);
    }
}

async fn snapshots_may_vanish_at_any_time(world: &World) {
    let (stream, good) = world.till(9).await;
    world.store.remove(&world.key(&stream)).await.unwrap();
    assert_eq!(world.cold().inspect::<Till>(&stream).await.unwrap().state, 9);
    assert_eq!(world.kept(&stream, 9).await, good, "who folded the whole stream keeps a snapshot of it");
    // Warm executors do not care.
    let executor = world.cold();
    for n in 9..15 {
        world.store.remove(&world.key(&stream)).await.unwrap();
        assert_eq!(executor.execute(ask(&stream, "take", 1, None)).await.unwrap().version, n + 1);
    }
}

async fn a_foreign_message_at_the_end_is_no_part_of_a_snapshot(world: &World) {
    let (stream, _) = world.till(6).await;
    let foreign = super::log::commit(&fresh_stream("till"), "foreign", 0, Position::START);
    let seen = world.cold().inspect::<Till>(&stream).await.unwrap();
    let append = crate::Append { stream: stream.clone(), expected: seen.position, ..foreign };
    let last = world.log.append(append).await.unwrap();
    world.store.remove(&world.key(&stream)).await.unwrap();
    // Folded from the log, past the foreign message, and kept as of the commit before it.
    assert_eq!(world.cold().inspect::<Till>(&stream).await.unwrap().version, 6);
    assert!(world.kept(&stream, 6).await.position < last);
    let executor = world.cold();
    assert_eq!(executor.inspect::<Till>(&stream).await.unwrap().position, last);
    assert_eq!(executor.execute(ask(&stream, "take", 1, None)).await.unwrap().version, 7);
}

/// A store that fails, or never answers at all.
struct Away {
    hangs: bool,
    stores: AtomicUsize,
}

impl Away {
    async fn answer<T>(&self) -> Result<T, SnapshotError> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(SnapshotError { attempt: "ask a store that is away", reason: "it is away".to_owned() })
    }
}

#[async_trait]
impl Snapshots for Away {
    async fn load(&self, _: &SnapshotKey) -> Result<Option<Snapshot>, SnapshotError> {
        self.answer().await
    }

    async fn store(&self, _: &SnapshotKey, _: &Snapshot) -> Result<(), SnapshotError> {
        self.stores.fetch_add(1, Ordering::Relaxed);
        self.answer().await
    }

    async fn remove(&self, _: &SnapshotKey) -> Result<(), SnapshotError> {
        self.answer().await
    }
}

async fn a_store_that_fails_or_hangs_changes_no_answer(world: &World) {
    let (stream, _) = world.till(9).await;
    for (round, hangs) in [false, true].into_iter().enumerate() {
        let away = Arc::new(Away { hangs, stores: AtomicUsize::new(0) });
        let store = Arc::clone(&away) as Arc<dyn Snapshots>;
        let cache = SnapshotCache::new(store, world.identity.clone(), world.fold.clone(), 1);
        let executor = executor_with_snapshots(&world.log, &world.index, Some(cache));
        // More than there are places for storing.
        for n in 0..20 {
            let version = executor.execute(ask(&stream, "take", 1, None)).await.unwrap().version;
            assert_eq!(version, 9 + 20 * round as u64 + n + 1);
        }
        // What is still being stored holds up nobody who shuts down.
        executor.close().await;
        let begun = async {
            while away.stores.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), begun).await.expect("nothing was stored");
        let stores = away.stores.load(Ordering::Relaxed);
        assert!(stores <= 4 || !hangs, "{stores} snapshots are being stored at once");
    }
}
