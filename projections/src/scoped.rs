//! Connections typed by tenant: what is asked through one of these is asked as the role `airstream_tenant`, which sees that
//! tenant's rows only, whatever a query forgets to say (ADR 0024).

use kernel::TenantId;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use crate::Failure;

// One statement, for the transaction only: a pooled connection must not take it to its next user.
pub(crate) const SCOPE: &str =
    "SELECT set_config('role', 'airstream_tenant', true), set_config('airstream.tenant', $1, true)";

/// A transaction on behalf of a tenant. Dropped unfinished, it is rolled back.
pub struct Scoped(Transaction<'static, Postgres>);

impl Scoped {
    /// Begins one. Hand it the tenant of an authenticated caller, never one from a request.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn to(pool: &PgPool, tenant: &TenantId) -> Result<Self, Failure> {
        let failed = |error| Failure::attempting("ask on behalf of a tenant")(error);
        let mut transaction = pool.begin().await.map_err(failed)?;
        sqlx::query(SCOPE).bind(tenant.as_str()).execute(&mut *transaction).await.map_err(failed)?;
        Ok(Self(transaction))
    }

    /// What queries run on.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// Lets what was written count.
    ///
    /// # Errors
    /// When Postgres does not take it.
    pub async fn finish(self) -> Result<(), Failure> {
        self.0.commit().await.map_err(Failure::attempting("finish on behalf of a tenant"))
    }
}
