//! How fast a projection catches up, against raw upserts of the rows that it writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use kernel::Position;
use projections::commits::Commits;
use projections::runs::Runs;
use projections::{Database, Projector};
use runtime::lease::Lease;
use runtime::{Log, consume};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tokio_util::sync::CancellationToken;

use super::Common;
use super::histories;
use super::place::Place;
use super::report::{Measured, Reach};
use super::rounds::{self, Samples, rate};
use super::rows::{self, Captured, schema};
use crate::output::Console;

/// Commits of a round.
pub(super) const COMMITS: usize = 30_000;

pub(super) async fn measure(console: &Console, place: &Place, common: &Common) -> anyhow::Result<Vec<Measured>> {
    let (log, database) = (place.log().await?, place.database().await?);
    let head = histories::write(place, common.size_or(COMMITS)).await?;
    let measured = vec![
        one::<Runs>(console, place, common, &log, &database, head).await?,
        one::<Commits>(console, place, common, &log, &database, head).await?,
    ];
    database.close().await;
    Ok(measured)
}

async fn one<P: Projector>(
    console: &Console,
    place: &Place,
    common: &Common,
    log: &Arc<dyn Log>,
    database: &Database,
    head: Position,
) -> anyhow::Result<Measured> {
    let bar = rounds::bar(console, &format!("project {}", P::NAME), common.rounds * 2 + 1);
    let mut connection = raw_connection(place).await?;
    let commits = histories::read(log, head).await?;
    let batch = consume::Options::default().batch;
    let captured = Captured::of::<P>(&mut connection, &commits, batch).await?;
    drop(commits);
    bar.inc(1);

    let (mut ours, mut limit) = (Samples::default(), Samples::default());
    for round in 0..common.rounds {
        for turn in [rounds::ours_first(round), !rounds::ours_first(round)] {
            if turn {
                forget::<P>(&mut connection).await?;
                let took = catch_up::<P>(&mut connection, log, database, head).await?;
                ours.push(rate(head.sequence() as usize, took));
            } else {
                rows::like::<P>(&mut connection, true).await?;
                let began = Instant::now();
                captured.upsert(&mut connection).await?;
                limit.push(rate(head.sequence() as usize, began.elapsed()));
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let detail = json!({ "commits": head.sequence(), "rows_written": captured.rows, "commits_per_batch": batch });
    Ok(Measured::of_rounds(&format!("project {}", P::NAME), "commits/s", &ours, &limit, Reach::Share(0.6)).with(detail))
}

/// A connection for the raw side, which loses the same as ours does when the power fails: nothing that the log does not
/// bring back.
pub(super) async fn raw_connection(place: &Place) -> anyhow::Result<PgConnection> {
    let mut connection = PgConnection::connect(&place.addresses.postgres_url).await?;
    rows::run(&mut connection, "SET synchronous_commit = off").await?;
    Ok(connection)
}

/// Puts a projection back to the beginning.
async fn forget<P: Projector>(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let tables = P::TABLES.iter().map(|table| format!("{}.{table}", schema::<P>())).collect::<Vec<_>>().join(", ");
    let consumer = schema::<P>();
    let statements = format!("TRUNCATE {tables}; DELETE FROM airstream.checkpoints WHERE consumer = '{consumer}'");
    rows::run(connection, &statements).await
}

/// Runs a projection until it has come to the head, as a process does that was away.
pub(super) async fn catch_up<P: Projector>(
    connection: &mut PgConnection,
    log: &Arc<dyn Log>,
    database: &Database,
    head: Position,
) -> anyhow::Result<Duration> {
    const PATIENCE: Duration = Duration::from_secs(600);
    let (stop, began) = (CancellationToken::new(), Instant::now());
    let options = consume::Options::default();
    let lease = Lease::permanent(P::NAME);
    let running = tokio::spawn(projections::run::<P>(database.clone(), lease, Arc::clone(log), options, stop.clone()));
    let took = loop {
        let found: Option<i64> = sqlx::query_scalar("SELECT position FROM airstream.checkpoints WHERE consumer = $1")
            .bind(schema::<P>())
            .fetch_optional(&mut *connection)
            .await?;
        if found.is_some_and(|found| found.unsigned_abs() >= head.sequence()) {
            break began.elapsed();
        }
        ensure!(began.elapsed() < PATIENCE, "the projection {} did not catch up in ten minutes", P::NAME);
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    stop.cancel();
    running.await?;
    Ok(took)
}
