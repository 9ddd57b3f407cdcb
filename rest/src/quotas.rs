//! What a tenant may use, beyond how often it may ask.

use async_trait::async_trait;
use kernel::Problem;

use crate::Signed;

/// Lets requests in by what their tenant has left of what it may use. The gateway asks it after the rate limits and before
/// the route.
#[async_trait]
pub trait Quotas: Send + Sync + 'static {
    /// Whether a caller may use a route with this scope now.
    ///
    /// # Errors
    /// 429 `quota_exceeded`, 402 or 503: whatever the caller should be told.
    async fn admit(&self, signed: &Signed, scope: &str) -> Result<(), Problem>;
}

/// Nobody is metered.
pub struct Unmetered;

#[async_trait]
impl Quotas for Unmetered {
    async fn admit(&self, _: &Signed, _: &str) -> Result<(), Problem> {
        Ok(())
    }
}
