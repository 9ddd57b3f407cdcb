//! `tenants`: who belongs to which tenant, and who has been asked. Addresses stay sealed.

use async_trait::async_trait;
use events::tenant::Event;
use kernel::{Envelope, Sealed, Timestamp};
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};

use crate::projector::{CommitFacts, ProjectError, Projector};
use crate::row::from_row;
use crate::{Failure, machinery};

/// The projector.
pub struct Tenants;

pub(crate) const CREATE: &str = "
    INSERT INTO tenants (tenant_id, name, created_at, position) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant_id) DO NOTHING";
pub(crate) const RENAME: &str = "UPDATE tenants SET name = $2 WHERE tenant_id = $1";
pub(crate) const CLOSE: &str = "UPDATE tenants SET closed_at = $2 WHERE tenant_id = $1";
pub(crate) const JOIN: &str = "
    INSERT INTO members (tenant_id, person, role, joined_at) VALUES ($1, $2, $3, $4)
    ON CONFLICT (tenant_id, person) DO UPDATE SET role = excluded.role";
pub(crate) const CHANGE_ROLE: &str = "UPDATE members SET role = $3 WHERE tenant_id = $1 AND person = $2";
pub(crate) const LEAVE: &str = "DELETE FROM members WHERE tenant_id = $1 AND person = $2";
pub(crate) const INVITE: &str = "
    INSERT INTO invites (tenant_id, invite, email, role, invited_by, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id, invite) DO NOTHING";
pub(crate) const UNINVITE: &str = "DELETE FROM invites WHERE tenant_id = $1 AND invite = $2";

#[async_trait]
impl Projector for Tenants {
    const NAME: &'static str = "tenants";
    const VERSION: u32 = 1;
    const CATEGORIES: &'static [&'static str] = &[events::tenant::CATEGORY];
    const TABLES: &'static [&'static str] = &["tenants", "members", "invites"];

    // Row by row: people join and leave far less often than things happen.
    async fn apply(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        for facts in commits {
            for envelope in &facts.commit.events {
                let row =
                    Row { tenant: facts.stream.tenant.as_str(), envelope, position: machinery::number(facts.position) };
                row.apply(tables).await?;
            }
        }
        Ok(())
    }
}

struct Row<'a> {
    tenant: &'a str,
    envelope: &'a Envelope<'a>,
    position: i64,
}

impl Row<'_> {
    async fn apply(&self, tables: &mut PgConnection) -> Result<(), ProjectError> {
        let (tenant, time) = (self.tenant, self.envelope.time);
        let query = match self.envelope.decode::<Event>()? {
            Event::Created(created) => {
                sqlx::query(CREATE)
                    .bind(tenant)
                    .bind(created.name)
                    .bind(time)
                    .bind(self.position)
                    .execute(&mut *tables)
                    .await?;
                sqlx::query(JOIN).bind(tenant).bind(created.owner).bind("owner").bind(time)
            }
            Event::Renamed(renamed) => sqlx::query(RENAME).bind(tenant).bind(renamed.name),
            Event::MemberInvited(invited) => sqlx::query(INVITE)
                .bind(tenant)
                .bind(invited.invite)
                .bind(Json(invited.email))
                .bind(invited.role.as_str())
                .bind(invited.by)
                .bind(time)
                .bind(invited.expires_at),
            Event::InviteRevoked(revoked) => sqlx::query(UNINVITE).bind(tenant).bind(revoked.invite),
            Event::MemberJoined(joined) => {
                sqlx::query(UNINVITE).bind(tenant).bind(joined.invite).execute(&mut *tables).await?;
                sqlx::query(JOIN).bind(tenant).bind(joined.person).bind(joined.role.as_str()).bind(time)
            }
            Event::RoleChanged(changed) => {
                sqlx::query(CHANGE_ROLE).bind(tenant).bind(changed.person).bind(changed.role.as_str())
            }
            Event::MemberLeft(left) => sqlx::query(LEAVE).bind(tenant).bind(left.person),
            Event::Closed(_) => sqlx::query(CLOSE).bind(tenant).bind(time),
        };
        query.execute(&mut *tables).await?;
        Ok(())
    }
}

/// A tenant that somebody belongs to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct MembershipRow {
    /// The tenant.
    #[schema(example = "tnt_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub id: String,
    /// What people call it.
    #[schema(example = "Acme")]
    pub name: String,
    /// What they may do there.
    #[schema(example = "owner")]
    pub role: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: Timestamp,
}

/// A member of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    /// Who.
    pub person: String,
    /// What they may do there.
    pub role: String,
    /// Since when.
    pub joined_at: Timestamp,
}

/// Somebody who has been asked.
#[derive(Debug, Clone, PartialEq)]
pub struct InviteRow {
    /// Which invitation.
    pub invite: String,
    /// To whom, sealed.
    pub email: Json<Sealed>,
    /// In which role.
    pub role: String,
    /// Who asked.
    pub invited_by: String,
    /// When.
    pub created_at: Timestamp,
    /// Until when it may be accepted.
    pub expires_at: Timestamp,
}

from_row!(MembershipRow { id, name, role, joined_at });
from_row!(MemberRow { person, role, joined_at });
from_row!(InviteRow { invite, email, role, invited_by, created_at, expires_at });

pub(crate) const OF_PERSON: &str = "
    SELECT tenant_id AS id, tenant.name, member.role, member.joined_at
    FROM tenants_v1.members AS member JOIN tenants_v1.tenants AS tenant USING (tenant_id)
    WHERE member.person = $1 AND tenant.closed_at IS NULL AND tenant_id > $2 ORDER BY tenant_id LIMIT $3";
pub(crate) const MEMBERS: &str = "
    SELECT person, role, joined_at FROM tenants_v1.members WHERE tenant_id = $1 AND person > $2 ORDER BY person LIMIT $3";
pub(crate) const INVITES: &str = "
    SELECT invite, email, role, invited_by, created_at, expires_at FROM tenants_v1.invites
    WHERE tenant_id = $1 AND invite > $2 ORDER BY invite LIMIT $3";

/// The tenants of a person after one of them, by id.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn of_person(pool: &PgPool, person: &str, after: &str, limit: i64) -> Result<Vec<MembershipRow>, Failure> {
    let rows = sqlx::query_as(OF_PERSON).bind(person).bind(after).bind(limit).fetch_all(pool).await;
    rows.map_err(Failure::attempting("list tenants"))
}

/// The members of a tenant after one of them, by id.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn members(pool: &PgPool, tenant: &str, after: &str, limit: i64) -> Result<Vec<MemberRow>, Failure> {
    let rows = sqlx::query_as(MEMBERS).bind(tenant).bind(after).bind(limit).fetch_all(pool).await;
    rows.map_err(Failure::attempting("list members"))
}

/// The open invitations of a tenant after one of them, by id.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn invites(pool: &PgPool, tenant: &str, after: &str, limit: i64) -> Result<Vec<InviteRow>, Failure> {
    let rows = sqlx::query_as(INVITES).bind(tenant).bind(after).bind(limit).fetch_all(pool).await;
    rows.map_err(Failure::attempting("list invitations"))
}
