//! What remains to be done when somebody is erased, and what has been done. Every step may be done again.

use std::collections::BTreeMap;

use kernel::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::types::Json;

use crate::{Database, Failure};

pub(crate) const INVITES: &str = "
    SELECT invite FROM identity.invites
    WHERE address = ANY($2) OR address IN (SELECT digest FROM identity.handles WHERE person = $1 AND kind = 'email')";
pub(crate) const KEYS: &str = "SELECT key FROM identity.api_keys WHERE owner = $1 AND revoked_at IS NULL";
pub(crate) const TENANTS: &str = "SELECT tenant_id FROM tenants_v1.members WHERE person = $1";
// What an interrupted erasure has found before goes on being part of it.
pub(crate) const BEGIN: &str = "
    INSERT INTO identity.erasures AS erasure (person, plan, erased) VALUES ($1, $2, '{}')
    ON CONFLICT (person) DO UPDATE SET plan = jsonb_build_object(
        'tenants', (SELECT coalesce(jsonb_agg(DISTINCT one), '[]') FROM jsonb_array_elements((erasure.plan -> 'tenants') || (excluded.plan -> 'tenants')) AS one),
        'keys', (SELECT coalesce(jsonb_agg(DISTINCT one), '[]') FROM jsonb_array_elements((erasure.plan -> 'keys') || (excluded.plan -> 'keys')) AS one),
        'invites', (SELECT coalesce(jsonb_agg(DISTINCT one), '[]') FROM jsonb_array_elements((erasure.plan -> 'invites') || (excluded.plan -> 'invites')) AS one))
    RETURNING plan";
pub(crate) const FORGET_INVITES: &str = "DELETE FROM identity.invites WHERE invite = ANY($1)";
pub(crate) const COUNT: &str = "
    UPDATE identity.erasures SET erased = jsonb_set(erased, ARRAY[$2], to_jsonb(coalesce((erased ->> $2)::bigint, 0) + $3))
    WHERE person = $1";
pub(crate) const NOTE: &str = "UPDATE identity.erasures SET erased = erased || $2 WHERE person = $1";
pub(crate) const FINISH: &str =
    "UPDATE identity.erasures SET finished_at = coalesce(finished_at, now()) WHERE person = $1";
pub(crate) const OUTCOME: &str = "SELECT erased, finished_at FROM identity.erasures WHERE person = $1";

/// Every row that is about a person and nobody else: what it counts as, and how it goes. A test asks that every table with a
/// column for a person is here, or says why not.
pub const OWN_ROWS: [(&str, &str); 10] = [
    ("sessions", "DELETE FROM identity.sessions WHERE person = $1"),
    ("recovery_codes", "DELETE FROM identity.recovery_codes WHERE person = $1"),
    ("credentials", "DELETE FROM identity.credentials WHERE person = $1"),
    ("codes", "DELETE FROM identity.codes WHERE person = $1"),
    ("devices", "DELETE FROM identity.devices WHERE person = $1"),
    ("exports", "DELETE FROM identity.exports WHERE person = $1"),
    ("mails", "DELETE FROM mail.outbox WHERE about = $1"),
    ("linked_identities", "DELETE FROM identity.handles WHERE person = $1 AND kind IN ('google', 'github')"),
    ("usernames", "DELETE FROM identity.handles WHERE person = $1 AND kind = 'username'"),
    // Last: the address is free again when everything else is gone.
    ("addresses", "DELETE FROM identity.handles WHERE person = $1"),
];

/// By what the rest is found once the person's rows are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// Tenants that they belonged to.
    pub tenants: Vec<String>,
    /// Keys of programs that they owned.
    pub keys: Vec<String>,
    /// Invitations to their addresses.
    pub invites: Vec<String>,
}

/// What came of an erasure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How many of what were erased.
    pub erased: BTreeMap<String, i64>,
    /// When everything was done.
    pub finished_at: Option<Timestamp>,
}

/// The table `identity.erasures`, and what it is about.
#[derive(Clone)]
pub struct Erasures {
    pool: PgPool,
}

impl Erasures {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone() }
    }

    /// Writes down what there is to be done for somebody, before anything by which it is found is gone. `addresses`: hashes of
    /// addresses that were theirs.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn begin(&self, person: &str, addresses: &[Vec<u8>]) -> Result<Remains, Failure> {
        let begun = async {
            let mut transaction = self.pool.begin().await?;
            let found = Remains {
                tenants: sqlx::query_scalar(TENANTS).bind(person).fetch_all(&mut *transaction).await?,
                keys: sqlx::query_scalar(KEYS).bind(person).fetch_all(&mut *transaction).await?,
                invites: sqlx::query_scalar(INVITES).bind(person).bind(addresses).fetch_all(&mut *transaction).await?,
            };
            let Json(remains) =
                sqlx::query_scalar(BEGIN).bind(person).bind(Json(found)).fetch_one(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(remains)
        };
        begun.await.map_err(Failure::attempting("begin an erasure"))
    }

    /// Removes the rows of invitations: their codes lead nowhere any more.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn forget_invites(&self, invites: &[String]) -> Result<(), Failure> {
        let forgotten = sqlx::query(FORGET_INVITES).bind(invites).execute(&self.pool).await;
        forgotten.map(drop).map_err(Failure::attempting("forget invitations"))
    }

    /// Removes every row of the person's own, and counts them, together.
    ///
    /// # Errors
    /// When Postgres cannot be asked; then none is gone.
    pub async fn wipe(&self, person: &str) -> Result<(), Failure> {
        let wiped = async {
            let mut transaction = self.pool.begin().await?;
            for (kind, delete) in OWN_ROWS {
                let gone = sqlx::query(delete).bind(person).execute(&mut *transaction).await?.rows_affected();
                let gone = i64::try_from(gone).unwrap_or(i64::MAX);
                sqlx::query(COUNT).bind(person).bind(kind).bind(gone).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        wiped.await.map_err(Failure::attempting("remove somebody's rows"))
    }

    /// Notes how many of what ended elsewhere; noted again, it is the same.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn note(&self, person: &str, counts: &BTreeMap<&str, i64>) -> Result<(), Failure> {
        let noted = sqlx::query(NOTE).bind(person).bind(Json(counts)).execute(&self.pool).await;
        noted.map(drop).map_err(Failure::attempting("note what was erased"))
    }

    /// Notes that everything is done.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn finish(&self, person: &str) -> Result<(), Failure> {
        let finished = sqlx::query(FINISH).bind(person).execute(&self.pool).await;
        finished.map(drop).map_err(Failure::attempting("finish an erasure"))
    }

    /// What came of somebody's erasure; `None`: it has not begun.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn outcome(&self, person: &str) -> Result<Option<Outcome>, Failure> {
        type Row = (Json<BTreeMap<String, i64>>, Option<Timestamp>);
        let found: Option<Row> = sqlx::query_as(OUTCOME)
            .bind(person)
            .fetch_optional(&self.pool)
            .await
            .map_err(Failure::attempting("look for an erasure"))?;
        Ok(found.map(|(Json(erased), finished_at)| Outcome { erased, finished_at }))
    }
}
