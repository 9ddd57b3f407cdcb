//! Budgets in Postgres, out of which instances take slices: GCRA, on the clock of the one database that all of them share.

use std::time::Duration;

use sqlx::PgPool;

use crate::{Database, Failure};

// One statement for many budgets, in the order of their names, so that two instances never wait for each other. The clock is
// read once per row, and after the row's lock was had: a budget that was waited for has grown meanwhile.
pub(crate) const TAKE_SLICES: &str = "
    INSERT INTO airstream.budgets AS budget (bucket, tat, granted, step, room, at)
    SELECT bucket, at + least(wanted, room / step) * step, least(wanted, room / step), step, room, at
    FROM (SELECT bucket, wanted, step, room, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS at
          FROM UNNEST($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[]) AS asked (bucket, wanted, step, room)
          ORDER BY bucket OFFSET 0) AS asked
    ON CONFLICT (bucket) DO UPDATE
    SET (tat, granted, step, room, at) = (
        SELECT greatest(budget.tat, at) + granted * excluded.step, granted, excluded.step, excluded.room, at
        FROM (SELECT at, greatest(0, least(excluded.granted,
                     (at + excluded.room - greatest(budget.tat, at)) / excluded.step)) AS granted
              FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS at OFFSET 0) AS clock
              OFFSET 0) AS slice)
    RETURNING bucket, granted, greatest(0, (at + room - tat) / step), greatest(0, tat + step - room - at)";
// A budget that is full is the same as none.
pub(crate) const SWEEP_BUDGETS: &str = "
    DELETE FROM airstream.budgets WHERE bucket = ANY(ARRAY(
        SELECT bucket FROM airstream.budgets
        WHERE tat < extract(epoch FROM now()) * 1000000 LIMIT 5000 FOR UPDATE SKIP LOCKED))";
pub(crate) const SHARERS: &str = "SELECT count(*) FROM airstream.instances WHERE until > now()";

/// What is asked of a budget, and the budget's terms. Who asks brings them along, so a changed configuration counts at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slice {
    /// Which budget.
    pub bucket: [u8; 16],
    /// How much of it; less may be given.
    pub wanted: u32,
    /// The time in which it grows by one.
    pub step: Duration,
    /// How much it holds, as the time in which that grows.
    pub room: Duration,
}

/// What was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Which budget.
    pub bucket: [u8; 16],
    /// How much; none when it is empty.
    pub granted: u32,
    /// How much is left for everybody.
    pub left: u32,
    /// When there is one more, if nothing is left.
    pub wait: Duration,
}

/// The table `airstream.budgets`.
#[derive(Clone)]
pub struct Budgets {
    pool: PgPool,
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 4)
}

fn count(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

impl Budgets {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone() }
    }

    /// Takes slices; each budget may be named once.
    ///
    /// # Errors
    /// When Postgres cannot be asked. Slices may have been taken then, which nobody has.
    pub async fn take(&self, slices: &[Slice]) -> Result<Vec<Given>, Failure> {
        let column = |of: fn(&Slice) -> i64| slices.iter().map(of).collect::<Vec<i64>>();
        let rows: Vec<(Vec<u8>, i64, i64, i64)> = sqlx::query_as(TAKE_SLICES)
            .bind(slices.iter().map(|slice| slice.bucket.to_vec()).collect::<Vec<_>>())
            .bind(column(|slice| i64::from(slice.wanted)))
            .bind(column(|slice| micros(slice.step).max(1)))
            .bind(column(|slice| micros(slice.room)))
            .fetch_all(&self.pool)
            .await
            .map_err(Failure::attempting("take slices of budgets"))?;
        let given = |(bucket, granted, left, wait): (Vec<u8>, i64, i64, i64)| {
            Some(Given {
                bucket: bucket.try_into().ok()?,
                granted: count(granted),
                left: count(left),
                wait: Duration::from_micros(wait.max(0).unsigned_abs()),
            })
        };
        Ok(rows.into_iter().filter_map(given).collect())
    }

    /// Forgets budgets that are full.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn sweep(&self) -> Result<u64, Failure> {
        let swept = sqlx::query(SWEEP_BUDGETS).execute(&self.pool).await;
        Ok(swept.map_err(Failure::attempting("sweep budgets"))?.rows_affected())
    }

    /// How many instances share the budgets, this one included.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn sharers(&self) -> Result<u32, Failure> {
        let found: i64 =
            sqlx::query_scalar(SHARERS).fetch_one(&self.pool).await.map_err(Failure::attempting("count instances"))?;
        Ok(count(found).max(1))
    }
}
