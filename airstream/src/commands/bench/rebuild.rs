//! How fast a projection is rebuilt from the log, against a raw COPY of the rows that come out.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use futures::TryStreamExt as _;
use kernel::Position;
use projections::commits::Commits;
use projections::runs::Runs;
use projections::{Database, Projector};
use runtime::Log;
use serde_json::json;
use sqlx::PgConnection;
use sqlx::postgres::PgPoolCopyExt as _;

use super::Common;
use super::histories;
use super::place::Place;
use super::project::{COMMITS, catch_up, raw_connection};
use super::report::{Measured, Reach};
use super::rounds::{self, Samples, rate};
use super::rows::{self, SCHEMA, schema};
use crate::output::Console;

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
    let bar = rounds::bar(console, &format!("rebuild {}", P::NAME), common.rounds * 2 + 1);
    let mut connection = raw_connection(place).await?;
    catch_up::<P>(&mut connection, log, database, head).await?;
    let copied = Copied::of::<P>(database, &mut connection).await?;
    bar.inc(1);

    let (mut ours, mut limit, mut rows) = (Samples::default(), Samples::default(), 0);
    for round in 0..common.rounds {
        for turn in [rounds::ours_first(round), !rounds::ours_first(round)] {
            if turn {
                let began = Instant::now();
                let fold = projections::rebuild::<P>(database, log, |_| {}).await.context("the rebuild failed")?;
                rows = usize::try_from(fold.rows).unwrap_or_default();
                ours.push(rate(rows, began.elapsed()));
            } else {
                rows::like::<P>(&mut connection, false).await?;
                let began = Instant::now();
                let copied = copied.copy(&mut connection).await?;
                limit.push(rate(copied, began.elapsed()));
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let detail = json!({ "commits": head.sequence(), "rows": rows });
    Ok(Measured::of_rounds(&format!("rebuild {}", P::NAME), "rows/s", &ours, &limit, Reach::Share(0.4)).with(detail))
}

/// A projection's tables as COPY gives them, and the statements that index them.
struct Copied {
    tables: Vec<(String, Vec<u8>)>,
    indexes: Vec<String>,
}

impl Copied {
    async fn of<P: Projector>(database: &Database, connection: &mut PgConnection) -> anyhow::Result<Self> {
        let (mut tables, mut indexes) = (Vec::new(), Vec::new());
        for table in P::TABLES {
            let statement = format!("COPY {}.{table} TO STDOUT", schema::<P>());
            let mut rows = database.pool().copy_out_raw(&statement).await?;
            let mut bytes = Vec::new();
            while let Some(part) = rows.try_next().await? {
                bytes.extend_from_slice(&part);
            }
            tables.push(((*table).to_owned(), bytes));
            let found: Vec<String> =
                sqlx::query_scalar("SELECT indexdef FROM pg_indexes WHERE schemaname = $1 AND tablename = $2")
                    .bind(schema::<P>())
                    .bind(table)
                    .fetch_all(&mut *connection)
                    .await?;
            let (live, raw) = (format!(" ON {}.", schema::<P>()), format!(" ON {SCHEMA}."));
            indexes.extend(found.iter().map(|statement| statement.replace(&live, &raw)));
        }
        Ok(Self { tables, indexes })
    }

    /// The rows first, in one transaction, their indexes after: nothing fills tables quicker.
    async fn copy(&self, connection: &mut PgConnection) -> anyhow::Result<usize> {
        let mut rows = 0;
        rows::run(connection, "BEGIN").await?;
        for (table, bytes) in &self.tables {
            let mut copy = connection.copy_in_raw(&format!("COPY {SCHEMA}.{table} FROM STDIN")).await?;
            copy.send(bytes.as_slice()).await?;
            rows += usize::try_from(copy.finish().await?).unwrap_or_default();
        }
        for statement in &self.indexes {
            rows::run(connection, statement).await?;
        }
        rows::run(connection, "COMMIT").await?;
        Ok(rows)
    }
}
