//! Sign-ins of devices (RFC 8628): one that has no keyboard asks, somebody decides elsewhere, the device asks again.

use kernel::Timestamp;
use sqlx::PgPool;

use crate::{Database, Failure};

pub(crate) const ASK: &str = "
    INSERT INTO identity.devices (device, user_code, about, expires_at, interval_seconds)
    VALUES ($1, $2, $3, now() + make_interval(secs => $4), $5)
    ON CONFLICT DO NOTHING";
pub(crate) const SHOW: &str = "
    SELECT about, created_at FROM identity.devices
    WHERE user_code = $1 AND approved IS NULL AND expires_at > now()";
// The same decision again, by whoever has not heard the answer, changes nothing.
pub(crate) const DECIDE: &str = "
    UPDATE identity.devices SET approved = $2, person = $3, session = coalesce(session, $4), amr = $5, auth_time = $6,
        tenant = $7, password_number = $8
    WHERE user_code = $1 AND expires_at > now() AND (approved IS NULL OR (approved = $2 AND person = $3))";
pub(crate) const POLL: &str = "
    SELECT approved, used_at IS NULL AND expires_at > now(), used_at IS NOT NULL,
        coalesce(polled_at > now() - make_interval(secs => interval_seconds), false),
        person, session, amr, auth_time, tenant, password_number
    FROM identity.devices WHERE device = $1 FOR UPDATE";
pub(crate) const POLLED: &str = "
    UPDATE identity.devices SET polled_at = now(), interval_seconds = interval_seconds + $2 WHERE device = $1";
pub(crate) const USED: &str = "
    UPDATE identity.devices SET used_at = coalesce(used_at, now()) WHERE device = $1 AND approved";
pub(crate) const WITHDRAW: &str = "
    UPDATE identity.devices SET approved = false WHERE person = $1 AND approved AND used_at IS NULL";
pub(crate) const ERASE: &str = "DELETE FROM identity.devices WHERE person = $1";
pub(crate) const SWEEP: &str = "
    DELETE FROM identity.devices WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM identity.devices WHERE expires_at < now() - interval '1 day' LIMIT 1000))";

/// Whoever asks too often asks so much less often from then on (RFC 8628, 3.5).
const SLOWER_BY_SECONDS: i32 = 5;

/// A device that asks. Of its codes only hashes are kept.
#[derive(Debug, Clone)]
pub struct NewDevice {
    /// The code that it shows us.
    pub device: Vec<u8>,
    /// The code that somebody types.
    pub user_code: Vec<u8>,
    /// What asks, and from where; wrapped.
    pub about: Vec<u8>,
    /// How long somebody may decide, in seconds.
    pub lifetime_seconds: f64,
    /// How often it may ask, in seconds.
    pub interval_seconds: i32,
}

/// What the session of a device is to be like.
#[derive(Debug, Clone, PartialEq)]
pub struct Approval {
    /// Whose.
    pub person: String,
    /// Its id, the same however often it is asked for.
    pub session: String,
    /// By what its holder showed who they are.
    pub amr: Vec<String>,
    /// And when.
    pub auth_time: Timestamp,
    /// The tenant that is worked in.
    pub tenant: Option<String>,
    /// The password of then: when it is replaced, the approval is worth nothing.
    pub password_number: u32,
}

/// What a device hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Polled {
    /// There is no such device, or it has signed in already.
    Unknown,
    /// Nobody has decided in time.
    Expired,
    /// Nobody has decided yet.
    Pending {
        /// Whether it asks more often than it may.
        hasty: bool,
    },
    /// Somebody has said no.
    Denied,
    /// Somebody has said yes.
    Approved(Approval),
}

/// The table `identity.devices`.
#[derive(Clone)]
pub struct Devices {
    pool: PgPool,
}

type Row = (
    Option<bool>,
    bool,
    bool,
    bool,
    Option<String>,
    Option<String>,
    Option<Vec<String>>,
    Option<Timestamp>,
    Option<String>,
    Option<i32>,
);

impl Devices {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone() }
    }

    /// Keeps a device that asks. `false`: another one has one of its codes.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn ask(&self, new: &NewDevice) -> Result<bool, Failure> {
        let asked = sqlx::query(ASK)
            .bind(&new.device)
            .bind(&new.user_code)
            .bind(&new.about)
            .bind(new.lifetime_seconds)
            .bind(new.interval_seconds)
            .execute(&self.pool)
            .await;
        asked.map(|done| done.rows_affected() == 1).map_err(Failure::attempting("keep a device that asks"))
    }

    /// What asks under a code that is typed, and since when, as long as nobody has decided.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn show(&self, user_code: &[u8]) -> Result<Option<(Vec<u8>, Timestamp)>, Failure> {
        let found = sqlx::query_as(SHOW).bind(user_code).fetch_optional(&self.pool).await;
        found.map_err(Failure::attempting("look for a device"))
    }

    /// Decides. `false`: nothing waits under this code, or somebody else has decided.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn decide(&self, user_code: &[u8], approved: bool, approval: &Approval) -> Result<bool, Failure> {
        let decided = sqlx::query(DECIDE)
            .bind(user_code)
            .bind(approved)
            .bind(&approval.person)
            .bind(&approval.session)
            .bind(&approval.amr)
            .bind(approval.auth_time)
            .bind(&approval.tenant)
            .bind(i32::try_from(approval.password_number).unwrap_or(i32::MAX))
            .execute(&self.pool)
            .await;
        decided.map(|done| done.rows_affected() == 1).map_err(Failure::attempting("decide about a device"))
    }

    /// A device asks whether somebody has decided.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn poll(&self, device: &[u8]) -> Result<Polled, Failure> {
        let polled = async {
            let mut transaction = self.pool.begin().await?;
            let found: Option<Row> = sqlx::query_as(POLL).bind(device).fetch_optional(&mut *transaction).await?;
            let Some((approved, open, used, hasty, person, session, amr, auth_time, tenant, number)) = found else {
                return Ok(Polled::Unknown);
            };
            let slower = if hasty { SLOWER_BY_SECONDS } else { 0 };
            sqlx::query(POLLED).bind(device).bind(slower).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(match (approved, person, session, auth_time) {
                _ if used => Polled::Unknown,
                _ if !open => Polled::Expired,
                (Some(true), Some(person), Some(session), Some(auth_time)) => Polled::Approved(Approval {
                    person,
                    session,
                    amr: amr.unwrap_or_default(),
                    auth_time,
                    tenant,
                    password_number: number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default(),
                }),
                (Some(_), ..) => Polled::Denied,
                (None, ..) => Polled::Pending { hasty },
            })
        };
        polled.await.map_err(Failure::attempting("ask for a device"))
    }

    /// The device has signed in: its code is worth nothing from now on. `false`: it was taken back meanwhile.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn used(&self, device: &[u8]) -> Result<bool, Failure> {
        let used = sqlx::query(USED).bind(device).execute(&self.pool).await;
        used.map(|done| done.rows_affected() == 1).map_err(Failure::attempting("forget a device's code"))
    }

    /// Turns away the devices that a person has let in and that have not come yet.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn withdraw(&self, person: &str) -> Result<(), Failure> {
        let withdrawn = sqlx::query(WITHDRAW).bind(person).execute(&self.pool).await;
        withdrawn.map(drop).map_err(Failure::attempting("turn devices away"))
    }

    /// Removes everything that a person has decided.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn erase(&self, person: &str) -> Result<(), Failure> {
        let erased = sqlx::query(ERASE).bind(person).execute(&self.pool).await;
        erased.map(drop).map_err(Failure::attempting("remove devices"))
    }

    /// Forgets devices of long ago, a thousand at most.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn sweep(&self) -> Result<u64, Failure> {
        let swept = sqlx::query(SWEEP).execute(&self.pool).await;
        swept.map(|swept| swept.rows_affected()).map_err(Failure::attempting("forget old devices"))
    }
}
