//! `/v1/auth`, `/v1/me` and `/.well-known`: identity over HTTP.

mod auth;
mod me;
mod well_known;

use rest::{Fault, Holder, SignedIn};
use utoipa_axum::router::OpenApiRouter;

use crate::accounts::Accounts;

/// The routes, to be mounted behind the gateway.
pub fn router(accounts: Accounts) -> OpenApiRouter {
    OpenApiRouter::new().merge(auth::router()).merge(me::router()).merge(well_known::router()).with_state(accounts)
}

/// Whose session asks: person and session.
fn person(signed: &SignedIn) -> Result<(&str, &str), Fault> {
    // The scope `me` lets people pass only.
    signed.0.check(rest::ME)?;
    match &signed.0.holder {
        Holder::Person { session, .. } => Ok((signed.0.principal.as_str(), session)),
        Holder::Program | Holder::Development => {
            Err(kernel::Problem::new(403, "people_only", "This is about a person; sign in as one.").into())
        }
    }
}
