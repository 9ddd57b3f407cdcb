//! Both schemas as of one moment, compared without holding anybody still.

use kernel::Position;
use runtime::consume::HandleError;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::beside::{Beside, mark};
use super::{Difference, Fold, Phase, failed};
use crate::projector::Projector;

/// How rows of a table find their counterparts: by its primary key, if it has one.
pub(crate) const KEY: &str = "
    SELECT string_agg(format('live.%1$I = log.%1$I', attname), ' AND ' ORDER BY number)
    FROM pg_index JOIN unnest(indkey::smallint[]) WITH ORDINALITY AS key (attnum, number) ON true
        JOIN pg_attribute USING (attnum)
    WHERE indisprimary AND indrelid = to_regclass($1) AND attrelid = indrelid";
const UNDECIDED: &str = "SELECT count(*) FROM airstream.parked WHERE consumer = $1 AND state <> 'skipped'";

impl<P: Projector> Beside<'_, P> {
    /// Everything but the switch.
    pub(super) async fn bring_close_and_compare(&mut self, connection: &mut PgConnection) -> Result<Fold, HandleError> {
        self.meter.enter(Phase::Fold).await;
        self.come_close(connection).await?;
        self.meter.enter(Phase::Index).await;
        self.make_indexes(connection, false).await?;
        self.analyze(connection).await?;
        self.meter.enter(Phase::CatchUp).await;
        self.come_close(connection).await?;

        // From its first statement on this transaction sees one moment of the live rows, checkpoint and parking lot. Its
        // own writes it sees as well, so that the second schema can still be brought to that moment.
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ";
        let mut transaction = connection.begin_with(begin).await.map_err(failed("begin"))?;
        let mark = mark(&mut transaction, &self.live).await?;
        let position = mark.position;
        self.follow(&mut transaction, mark).await?;
        self.meter.enter(Phase::Compare).await;
        let fold = self.compare(&mut transaction, position).await?;
        transaction.commit().await.map_err(failed("commit"))?;
        Ok(fold)
    }

    async fn compare(&mut self, connection: &mut PgConnection, position: Position) -> Result<Fold, HandleError> {
        let (mut rows, mut differences) = (0, Vec::new());
        for table in P::TABLES {
            let (count, difference) = self.compare_table(connection, table).await?;
            rows += count;
            differences.extend(difference);
        }
        let parked: i64 = sqlx::query_scalar(UNDECIDED)
            .bind(&self.live)
            .fetch_one(connection)
            .await
            .map_err(failed("count what is parked"))?;
        Ok(Fold { projection: self.live.clone(), position, rows, differences, parked, held_ms: 0.0 })
    }

    async fn compare_table(
        &mut self,
        connection: &mut PgConnection,
        table: &str,
    ) -> Result<(i64, Option<Difference>), HandleError> {
        let attempt = failed("compare rows");
        let (live, log) = (format!("{}.{table}", self.live), format!("{}.{table}", self.name));
        let count = format!("SELECT (SELECT count(*) FROM {log}), (SELECT count(*) FROM {live})");
        let (rows, live_rows): (i64, i64) =
            sqlx::query_as(AssertSqlSafe(count)).fetch_one(&mut *connection).await.map_err(&attempt)?;
        // Rows of one key that are the same byte by byte, as many as either side has: nothing can differ. Else, and that
        // says not yet that anything does, all of them are sorted out by what their values mean.
        let key: Option<String> =
            sqlx::query_scalar(KEY).bind(&live).fetch_one(&mut *connection).await.map_err(&attempt)?;
        if let Some(key) = key {
            let same = format!("SELECT count(*) FROM {live} AS live JOIN {log} AS log ON {key} WHERE live *= log");
            let same: i64 =
                sqlx::query_scalar(AssertSqlSafe(same)).fetch_one(&mut *connection).await.map_err(&attempt)?;
            if same == rows && same == live_rows {
                return Ok((rows, None));
            }
        }
        let (mut counts, mut examples) = ([0, 0], Vec::new());
        for (index, (one, other)) in [(&live, &log), (&log, &live)].into_iter().enumerate() {
            let missing = format!("SELECT * FROM {one} EXCEPT ALL SELECT * FROM {other}");
            let sql = format!("SELECT count(*) FROM ({missing}) AS missing");
            counts[index] =
                sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await.map_err(&attempt)?;
            if counts[index] > 0 {
                let sql = format!("SELECT to_jsonb(missing) FROM ({missing}) AS missing LIMIT 3");
                let found: Vec<Value> =
                    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut *connection).await.map_err(&attempt)?;
                let side = ["only_live", "only_log"][index];
                examples.extend(found.into_iter().map(|row| serde_json::json!({ side: row })));
            }
        }
        let [only_live, only_log] = counts;
        let difference = Difference { table: table.to_owned(), only_live, only_log, examples };
        Ok((rows, (only_live + only_log > 0).then_some(difference)))
    }
}
