//! Streams and tables written out and read back, on the real servers.

use std::io;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use kernel::Position;
use nats::backup::{self, Extent};
use nats::{JetStreamLog, topology};
use projections::Database;
use projections::backup::{LEFT_OUT, Restoring, Source, TABLES, Table, target, unfinished};
use runtime::contract::{fresh_stream, log};
use runtime::{AppendError, Freshness, Log};
use stories::Servers;

#[tokio::test(flavor = "multi_thread")]
async fn a_log_restored_behind_the_back_of_postgres_is_another_log() {
    let servers = Servers::with_topology().await.unwrap();
    let journal = JetStreamLog::new(servers.nats.clone());
    let stream = fresh_stream("till");
    let mut last = Position::START;
    for version in 0..300 {
        last = journal.append(log::commit(&stream, &format!("c{version}"), version, last)).await.unwrap();
    }
    let before = journal.read_stream(&stream, Position::START, Freshness::Leader).await.unwrap().commits;
    let identity = journal.identity().await.unwrap();

    let snapshot = backup::save(&servers.nats, topology::EVENTS).await.unwrap();
    // Written while the copy is made: not in it.
    journal.append(log::commit(&stream, "late", 300, last)).await.unwrap();
    let description = snapshot.description;
    let pieces: Vec<Bytes> = snapshot.pieces.try_collect().await.unwrap();
    assert_eq!((description.messages(), description.first(), description.last()), (300, 1, 300));
    let archive = || futures::stream::iter(pieces.clone().into_iter().map(io::Result::Ok)).boxed();
    let taken = backup::load(&servers.nats, &description, 1, "m", archive(), &|_| {}).await.unwrap_err();
    assert!(taken.reason.contains("already in use"), "{taken}");

    backup::remove(&servers.nats, topology::EVENTS).await.unwrap();
    assert_eq!(backup::extent(&servers.nats, topology::EVENTS).await.unwrap(), None);
    backup::load(&servers.nats, &description, 1, "m", archive(), &|_| {}).await.unwrap();
    let found = backup::extent(&servers.nats, topology::EVENTS).await.unwrap();
    assert_eq!(found, Some(Extent { messages: 300, first: 1, last: 300 }));
    assert_eq!(journal.read_stream(&stream, Position::START, Freshness::Leader).await.unwrap().commits.len(), 300);
    let after = journal.read_stream(&stream, Position::START, Freshness::Leader).await.unwrap().commits;
    let seen = |commits: &[runtime::Recorded]| -> Vec<_> {
        commits.iter().map(|found| (found.position, found.recorded_at, found.payload.clone(), found.guarded)).collect()
    };
    assert_eq!(seen(&after), seen(&before));
    // Checkpoints of the old one do not fit: its age is another, and so is its mark.
    let restored = journal.identity().await.unwrap();
    assert!(restored != identity && restored.ends_with("_m"), "{identity} became {restored}");
    // Guards hold as before, and the next commit comes behind the last.
    let stale = journal.append(log::commit(&stream, "stale", 299, Position::at(299))).await;
    assert!(matches!(stale, Err(AppendError::Conflict)), "{stale:?}");
    assert_eq!(journal.append(log::commit(&stream, "next", 300, last)).await.unwrap(), Position::at(301));
    // As strict as it was: the settings came back with it.
    assert_eq!(topology::ensure(&servers.nats, 1).await.unwrap(), []);

    // An archive that ends too early is no stream.
    backup::remove(&servers.nats, topology::EVENTS).await.unwrap();
    let half = futures::stream::iter([io::Result::Ok(pieces[0].slice(..pieces[0].len() / 2))]).boxed();
    assert!(backup::load(&servers.nats, &description, 1, "m", half, &|_| {}).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_killed_begins_anew() {
    let servers = Servers::fresh().await.unwrap();
    let pool = servers.database.pool();
    let rows = "
        INSERT INTO airstream.checkpoints (consumer, position, log) VALUES ('a_v1', 7, 'old'), ('b_v1', 3, 'other');
        INSERT INTO airstream.parked (consumer, position, subject, tenant_id, state, reason)
        VALUES ('a_v1', 5, 'ev.1.t.c.x', 't', 'skipped', E'two\\nlines\\tand a tab \\\\ \u{e9}')";
    sqlx::raw_sql(rows).execute(pool).await.unwrap();
    let mut source = Source::of(&servers.database).await.unwrap();
    // Later than the copy's moment.
    sqlx::raw_sql("UPDATE airstream.checkpoints SET position = 100").execute(pool).await.unwrap();
    assert_eq!(source.farthest("old").await.unwrap(), 7);
    let mut copies = Vec::new();
    for name in ["checkpoints", "parked"] {
        let table = Table::named(name).unwrap();
        let pieces: Vec<Bytes> = source.rows(table).await.unwrap().try_collect().await.unwrap();
        copies.push((table, pieces.concat()));
    }
    assert_eq!(Table::place(std::str::from_utf8(&copies[1].1).unwrap()), Some(("a_v1", 5)));

    let other = Servers::fresh().await.unwrap();
    let restorer = Database::open_as("airstream restore", &other.postgres_url, 2).await.unwrap();
    assert!(target(restorer.pool()).await.unwrap().is_none());
    assert!(Restoring::begin(&restorer, "b").await.unwrap().is_none(), "a process is connected");
    assert_eq!(unfinished(restorer.pool()).await.unwrap(), None, "what did not begin left its mark");
    other.database.close().await;
    let fill = async |restoring: &mut Restoring| {
        for (table, bytes) in &copies {
            let rows = futures::stream::iter([io::Result::Ok(Bytes::from(bytes.clone()))]).boxed();
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(restoring.fill(table, rows).await.unwrap(), lines as u64);
        }
    };
    let mut killed = Restoring::begin(&restorer, "b").await.unwrap().unwrap();
    fill(&mut killed).await;
    assert!(Restoring::begin(&restorer, "b").await.unwrap().is_none(), "two restores at once");
    drop(killed);
    assert_eq!(unfinished(restorer.pool()).await.unwrap().as_deref(), Some("b"));
    let mut again = None;
    stories::eventually("the dead one's session has ended", async || {
        again = Restoring::begin(&restorer, "b").await.unwrap();
        again.is_some()
    })
    .await;
    let mut again = again.unwrap();
    fill(&mut again).await;
    again.finish("old", "new").await.unwrap();
    assert_eq!(unfinished(restorer.pool()).await.unwrap(), None);
    let sql = "SELECT consumer, position, log FROM airstream.checkpoints ORDER BY consumer";
    let found: Vec<(String, i64, String)> = sqlx::query_as(sql).fetch_all(restorer.pool()).await.unwrap();
    let expected = [("a_v1", 7, "new"), ("b_v1", 3, "other")];
    assert_eq!(found, expected.map(|(consumer, position, log)| (consumer.to_owned(), position, log.to_owned())));
    let sql = "SELECT reason FROM airstream.parked";
    let reason: String = sqlx::query_scalar(sql).fetch_one(restorer.pool()).await.unwrap();
    assert_eq!(reason, "two\nlines\tand a tab \\ \u{e9}");
    assert!(!target(restorer.pool()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_is_backed_up_or_left_out_for_a_reason() {
    let servers = Servers::fresh().await.unwrap();
    // Projections have versions in their names and are folded from the log.
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema)' AND n.nspname !~ '_v[0-9]+$'
         ORDER BY 1",
    )
    .fetch_all(servers.database.pool())
    .await
    .unwrap();
    let mut known: Vec<String> = TABLES.iter().map(Table::qualified).collect();
    known.extend(LEFT_OUT.iter().map(|(name, _)| (*name).to_owned()));
    known.sort();
    assert_eq!(tables, known, "name a new table in projections/src/backup.rs");
    // Whoever adds a column says whether it belongs into a backup.
    for table in &TABLES {
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped",
        )
        .bind(table.qualified())
        .fetch_all(servers.database.pool())
        .await
        .unwrap();
        let missing: Vec<&String> = columns.iter().filter(|column| !table.columns().contains(column)).collect();
        let left: &[&str] = if table.name == "checkpoints" { &["epoch", "moved"] } else { &[] };
        assert_eq!(missing, left, "columns of {}", table.name);
    }
}
