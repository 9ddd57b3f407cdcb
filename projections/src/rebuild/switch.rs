//! The second schema takes the place of the live one, which is kept.

use std::time::{Duration, Instant};

use runtime::consume::HandleError;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::beside::{Beside, mark};
use super::{Phase, failed};
use crate::machinery;
use crate::projector::Projector;

/// Where the rows that are switched out stand, and what is not in them.
pub(crate) const KEEP: &str = "
    INSERT INTO airstream.kept (projection, position, log, parked)
    SELECT consumer, position, log,
           (SELECT COALESCE(jsonb_agg(to_jsonb(parked)), '[]') FROM airstream.parked WHERE parked.consumer = checkpoint.consumer)
    FROM airstream.checkpoints AS checkpoint WHERE consumer = $1
    ON CONFLICT (projection) DO UPDATE SET
        position = EXCLUDED.position, log = EXCLUDED.log, parked = EXCLUDED.parked, kept_at = now()";

impl<P: Projector> Beside<'_, P> {
    /// Tells how long the live projection was held still.
    pub(super) async fn switch(&mut self, connection: &mut PgConnection) -> Result<Duration, HandleError> {
        self.meter.enter(Phase::CatchUp).await;
        self.come_close(connection).await?;
        self.meter.enter(Phase::Switch).await;
        // Once more, since the meter wrote: what is missing now came within a moment.
        self.come_close(connection).await?;

        let (live, next) = (self.live.clone(), self.name.clone());
        let mut transaction = connection.begin().await.map_err(failed("begin"))?;
        // Whoever is told that it is done may rely on it.
        // Paused now, we would hold up the live projection for as long as we sleep: Postgres ends it instead.
        let settings = "SET LOCAL synchronous_commit = on; SET LOCAL idle_in_transaction_session_timeout = '5s'";
        sqlx::raw_sql(settings).execute(&mut *transaction).await.map_err(failed("begin"))?;
        machinery::hold(&mut transaction, &live).await?;
        let held = Instant::now();
        let mark = mark(&mut transaction, &live).await?;
        self.follow(&mut transaction, mark).await?;
        sqlx::query(KEEP).bind(&live).execute(&mut *transaction).await.map_err(failed("keep the live schema"))?;
        // The schema kept so far only steps aside: dropping it waits for its readers, and must not do so here.
        let rename = |from: &str, to: &str| {
            format!(
                "DO $$ BEGIN IF to_regnamespace('{from}') IS NOT NULL THEN ALTER SCHEMA {from} RENAME TO {to}; END IF; END $$;"
            )
        };
        let ddl = [
            rename(&format!("{live}_old"), &format!("{live}_gone")),
            rename(&live, &format!("{live}_old")),
            rename(&next, &live),
        ];
        sqlx::raw_sql(AssertSqlSafe(ddl.concat())).execute(&mut *transaction).await.map_err(failed("switch"))?;
        transaction.commit().await.map_err(failed("commit the switch"))?;
        Ok(held.elapsed())
    }
}
