//! Invitations, by what is known when somebody comes with one. What has become of an invitation, its tenant's stream says.

use sqlx::PgPool;

use crate::row::from_row;
use crate::{Database, Failure};

pub(crate) const NOTE: &str = "
    INSERT INTO identity.invites (invite, tenant, address, code) VALUES ($1, $2, $3, $4)
    ON CONFLICT (invite) DO NOTHING";
pub(crate) const BY_CODE: &str = "SELECT invite, tenant, address FROM identity.invites WHERE code = $1";
pub(crate) const TO_ADDRESS: &str = "
    SELECT invite, tenant, address FROM identity.invites WHERE address = $1 AND ($2::text IS NULL OR tenant = $2)";
pub(crate) const FORGET: &str = "DELETE FROM identity.invites WHERE invite = $1";

/// An invitation that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteKey {
    /// Which.
    pub invite: String,
    /// To which tenant.
    pub tenant: String,
    /// To whom: a keyed hash of the address.
    pub address: Vec<u8>,
}

from_row!(InviteKey { invite, tenant, address });

/// The table `identity.invites`.
#[derive(Clone)]
pub struct Invites {
    pool: PgPool,
}

impl Invites {
    /// In the migrated database.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self { pool: database.pool().clone() }
    }

    /// Notes an invitation with the hash of its code; one that is noted stays as it is.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn note(&self, key: &InviteKey, code: &[u8]) -> Result<(), Failure> {
        let noted = sqlx::query(NOTE)
            .bind(&key.invite)
            .bind(&key.tenant)
            .bind(&key.address)
            .bind(code)
            .execute(&self.pool)
            .await;
        noted.map(drop).map_err(Failure::attempting("note an invitation"))
    }

    /// The invitation that a code belongs to.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn by_code(&self, code: &[u8]) -> Result<Option<InviteKey>, Failure> {
        let found = sqlx::query_as(BY_CODE).bind(code).fetch_optional(&self.pool).await;
        found.map_err(Failure::attempting("look for an invitation"))
    }

    /// The invitations to an address, of one tenant or of all.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn to_address(&self, address: &[u8], tenant: Option<&str>) -> Result<Vec<InviteKey>, Failure> {
        let found = sqlx::query_as(TO_ADDRESS).bind(address).bind(tenant).fetch_all(&self.pool).await;
        found.map_err(Failure::attempting("look for invitations"))
    }

    /// Forgets an invitation: its code leads nowhere any more.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn forget(&self, invite: &str) -> Result<(), Failure> {
        let forgotten = sqlx::query(FORGET).bind(invite).execute(&self.pool).await;
        forgotten.map(drop).map_err(Failure::attempting("forget an invitation"))
    }
}
