//! The record of leases in Postgres, whose clock decides when a lease is over.
//!
//! An instance holds a session lock beside its row. A dead process loses the lock at once, so others need not wait for its
//! leases to run out; one that hangs keeps the lock and loses its leases by time.

use std::collections::BTreeMap;

use async_trait::async_trait;
use kernel::Timestamp;
use runtime::StoreError;
use runtime::lease::{Claim, Claimed, Contender, LeaseStore, Turn, assign};
use sqlx::{PgConnection, PgPool};
use tokio::sync::Mutex;

use crate::{Database, Failure, machinery};

/// First half of the session locks' keys; the second is the instance's number. Far from every other lock of ours, which
/// are single keys.
const SESSIONS: i32 = 0x4149_5253;

pub(crate) const ANNOUNCE: &str = "
    INSERT INTO airstream.instances (instance, wants, session, until)
    VALUES ($1, $2, $3, now() + make_interval(secs => $4))
    ON CONFLICT (instance) DO UPDATE SET wants = excluded.wants, session = excluded.session, until = excluded.until";
pub(crate) const BURY: &str = "
    DELETE FROM airstream.instances AS gone
    WHERE until < now() OR NOT EXISTS
        (SELECT 1 FROM pg_locks
         WHERE locktype = 'advisory' AND objsubid = 2 AND granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND classid = $1::integer::bigint::oid AND objid = gone.session::bigint::oid)";
pub(crate) const ALIVE: &str = "SELECT instance, wants FROM airstream.instances ORDER BY instance";
pub(crate) const HELD: &str = "
    SELECT name, holder, epoch FROM airstream.leases
    WHERE until > now() AND holder IN (SELECT instance FROM airstream.instances) ORDER BY name";
pub(crate) const PROLONG: &str = "
    UPDATE airstream.leases SET until = now() + make_interval(secs => $3)
    WHERE holder = $1 AND name = ANY($2) AND until > now()";
// Another may have been quicker: what is held by somebody alive stays with that one.
pub(crate) const TAKE: &str = "
    INSERT INTO airstream.leases AS lease (name, holder, epoch, until)
    SELECT name, $1, nextval('airstream.epochs'), now() + make_interval(secs => $3)
    FROM UNNEST($2::text[]) AS name ORDER BY name
    ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder, epoch = excluded.epoch, until = excluded.until, since = now()
    WHERE lease.holder IS NULL OR lease.until <= now()
        OR lease.holder NOT IN (SELECT instance FROM airstream.instances)";
pub(crate) const GIVE: &str =
    "UPDATE airstream.leases SET holder = NULL, since = now() WHERE holder = $1 AND name = ANY($2)";
pub(crate) const LEAVE: &str = "DELETE FROM airstream.instances WHERE instance = $1";
pub(crate) const SESSION: &str = "SELECT pg_try_advisory_lock($1, $2)";

/// Leases of the instances that share a database.
pub struct PgLeases {
    database: Database,
    session: Mutex<Option<Session>>,
}

/// The connection that proves that we live, and the number under which it does.
struct Session {
    connection: PgConnection,
    number: i32,
}

impl PgLeases {
    /// On the migrated database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database, session: Mutex::default() }
    }

    async fn open(&self) -> Result<Session, sqlx::Error> {
        let mut connection = self.database.dedicated().await?;
        // Numbers are drawn by chance; one that another instance has is drawn again.
        loop {
            let number = (runtime::clock::random() >> 1) as i32;
            let ours: bool = sqlx::query_scalar(SESSION).bind(SESSIONS).bind(number).fetch_one(&mut connection).await?;
            if ours {
                return Ok(Session { connection, number });
            }
        }
    }
}

/// Each statement stands for itself. A transaction, or a lock, around all of them could be left open by an instance that is
/// paused in the middle, and nobody else would get a turn.
async fn take_turn(session: &mut Session, claim: &Claim) -> Result<Turn, sqlx::Error> {
    let number = session.number;
    let connection = &mut session.connection;
    let lasting = claim.lasting.as_secs_f64();
    let announced = sqlx::query(ANNOUNCE).bind(&claim.instance).bind(&claim.wants).bind(number).bind(lasting);
    announced.execute(&mut *connection).await?;
    sqlx::query(BURY).bind(SESSIONS).execute(&mut *connection).await?;
    let alive: Vec<(String, Vec<String>)> = sqlx::query_as(ALIVE).fetch_all(&mut *connection).await?;
    let held: Vec<(String, String, i64)> = sqlx::query_as(HELD).fetch_all(&mut *connection).await?;

    let me = Contender { instance: claim.instance.clone(), wants: claim.wants.clone() };
    let alive: Vec<Contender> = alive.into_iter().map(|(instance, wants)| Contender { instance, wants }).collect();
    let claimed: Vec<Claimed> =
        held.iter().map(|(name, holder, _)| Claimed { name: name.clone(), holder: holder.clone() }).collect();
    let wanted = assign(&me, &alive, &claimed);
    if !wanted.keep.is_empty() {
        let prolonged = sqlx::query(PROLONG).bind(&claim.instance).bind(&wanted.keep).bind(lasting);
        prolonged.execute(&mut *connection).await?;
    }
    if !wanted.give.is_empty() {
        sqlx::query(GIVE).bind(&claim.instance).bind(&wanted.give).execute(&mut *connection).await?;
    }
    if !wanted.take.is_empty() {
        let taken = sqlx::query(TAKE).bind(&claim.instance).bind(&wanted.take).bind(lasting);
        taken.execute(&mut *connection).await?;
    }
    // Only what stands in the record now is ours.
    let held: Vec<(String, String, i64)> = sqlx::query_as(HELD).fetch_all(&mut *connection).await?;

    let mut turn = Turn { held: BTreeMap::new(), holders: BTreeMap::new() };
    for (name, holder, epoch) in held {
        if holder == claim.instance {
            turn.held.insert(name.clone(), u64::try_from(epoch).unwrap_or_default());
        }
        turn.holders.insert(name, holder);
    }
    Ok(turn)
}

#[async_trait]
impl LeaseStore for PgLeases {
    async fn turn(&self, claim: &Claim) -> Result<Turn, StoreError> {
        let failed = |error| Failure::attempting("keep leases")(error);
        let mut kept = self.session.lock().await;
        // Taken out while it is used: a turn that is given up half-way leaves no connection behind that nobody can trust.
        let mut session = match kept.take() {
            Some(session) => session,
            None => self.open().await.map_err(failed)?,
        };
        let turn = take_turn(&mut session, claim).await.map_err(failed)?;
        *kept = Some(session);
        Ok(turn)
    }

    async fn leave(&self, instance: &str) -> Result<(), StoreError> {
        let failed = |error| Failure::attempting("give up leases")(error);
        if let Some(mut session) = self.session.lock().await.take() {
            sqlx::query(LEAVE).bind(instance).execute(&mut session.connection).await.map_err(failed)?;
            machinery::release(session.connection).await;
        }
        Ok(())
    }
}

pub(crate) const INSTANCES: &str = "
    SELECT instance, since, until,
        ARRAY(SELECT name FROM airstream.leases AS lease
              WHERE lease.holder = instances.instance AND lease.until > now() ORDER BY name)
    FROM airstream.instances WHERE until > now() ORDER BY since, instance";

/// An instance that shares the work.
#[derive(Debug, Clone, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct InstanceRow {
    /// Its name; a new one for every start.
    #[schema(example = "ins_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub instance: String,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Until when it counts as alive without another word.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// What it does, as lease names.
    #[schema(example = json!(["projection/runs_v1", "shard/3"]))]
    pub leases: Vec<String>,
}

/// Every instance that is alive, the oldest first.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn instances(pool: &PgPool) -> Result<Vec<InstanceRow>, Failure> {
    let rows: Vec<(String, Timestamp, Timestamp, Vec<String>)> =
        sqlx::query_as(INSTANCES).fetch_all(pool).await.map_err(Failure::attempting("list instances"))?;
    let row = |(instance, since, until, leases)| InstanceRow { instance, since, until, leases };
    Ok(rows.into_iter().map(row).collect())
}
