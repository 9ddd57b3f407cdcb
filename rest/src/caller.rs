//! Who calls, and who may. The gateway puts it into the request; a route that asks for it cannot be reached without.

use async_trait::async_trait;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use kernel::{PrincipalId, Problem, TenantId};

use crate::Fault;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose data the request is about.
    pub tenant: TenantId,
    /// Who asks.
    pub principal: PrincipalId,
    /// Whether the caller runs the platform: what concerns all tenants is for operators only.
    pub operator: bool,
}

impl Caller {
    /// Lets operators pass.
    ///
    /// # Errors
    /// 403 `not_an_operator`.
    pub fn require_operator(&self) -> Result<(), Problem> {
        match self.operator {
            true => Ok(()),
            false => Err(Problem::new(403, "not_an_operator", "This concerns all tenants; ask an operator.")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        // Reaching this without a caller means that a route was mounted outside the gateway's authentication.
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::new(401, "unauthenticated", "Send `Authorization: Bearer <token>`.").into())
    }
}

/// Establishes callers.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// Who holds a bearer token.
    ///
    /// # Errors
    /// 401 `unauthenticated`.
    async fn bearer(&self, token: &str) -> Result<Caller, Problem>;

    /// Whether a tenant exists: the bus names one in the subject.
    async fn knows(&self, tenant: &TenantId) -> bool;
}
