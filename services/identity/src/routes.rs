//! `/v1/auth`, `/v1/me` and `/.well-known`: identity over HTTP.

mod api_keys;
mod auth;
mod device;
mod invites;
mod me;
mod oauth;
mod operate;
mod page;
mod password;
mod privacy;
mod tenants;
mod to_the_end;
mod token;
mod totp;
mod well_known;

use axum::Json;
use axum::http::{HeaderName, header};
use axum::middleware::from_fn;
use kernel::{Problem, TenantId};
use rest::{Fault, Holder, PageQuery, Payload, SignedIn};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;

use crate::accounts::{Accounts, Proof};
use crate::password::Password;

pub use privacy::router as privacy;

/// The routes, to be mounted behind the gateway.
pub fn router(accounts: Accounts) -> OpenApiRouter {
    OpenApiRouter::new()
        .merge(auth::router())
        .merge(me::router())
        .merge(tenants::router())
        .merge(invites::router())
        .merge(api_keys::router())
        .merge(oauth::router())
        .merge(well_known::router())
        .merge(password::router())
        .merge(totp::router())
        .merge(device::router())
        .merge(token::router())
        .merge(page::router())
        .merge(operate::router())
        .route_layer(from_fn(to_the_end::changes))
        .with_state(accounts)
}

/// An answer that nobody in between may keep (RFC 6749, 5.1).
type Secret<T> = ([(HeaderName, &'static str); 1], Json<T>);

fn secret<T>(body: T) -> Secret<T> {
    ([(header::CACHE_CONTROL, "no-store")], Json(body))
}

/// What a session shows of who asks, with the password if they sent it.
fn proof(signed: &SignedIn, password: Option<Password>) -> Result<Proof, Fault> {
    match &signed.0.holder {
        Holder::Person { auth_time, .. } => Ok(Proof { auth_time: *auth_time, password }),
        Holder::Program | Holder::Development => Err(people_only().into()),
    }
}

fn people_only() -> Problem {
    Problem::new(403, "people_only", "This is about a person; sign in as one.")
}

/// Whose session asks: person and session.
fn person(signed: &SignedIn) -> Result<(&str, &str), Fault> {
    // The scope `me` lets people pass only.
    signed.0.check(rest::ME)?;
    match &signed.0.holder {
        Holder::Person { session, .. } => Ok((signed.0.principal.as_str(), session)),
        Holder::Program | Holder::Development => Err(people_only().into()),
    }
}

/// The tenant of the path, if it is the one that is worked in: going into another one is a step of its own. Whether there is
/// such a tenant is not told.
fn inside<'a>(signed: &'a SignedIn, tenant: &str) -> Result<&'a TenantId, Fault> {
    match &signed.0.tenant {
        Some(own) if own.as_str() == tenant => Ok(own),
        _ => {
            let detail = "Your token is for another tenant: `POST /v1/auth/tenant` gives one for each of yours.";
            Err(Problem::new(403, "another_tenant", detail).into())
        }
    }
}

/// A page of something that may be asked for as of a position.
#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct FreshPage {
    /// Items per page: 1 to 500.
    #[param(default = 50)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// A position from an earlier answer: answer only once it is visible.
    at_least: Option<String>,
}

impl FreshPage {
    /// How many, and after which.
    fn read(&self) -> Result<(usize, &str), Fault> {
        let page = PageQuery { limit: self.limit, cursor: None };
        Ok((page.limit()?, after(self.cursor.as_deref())?))
    }
}

/// A cursor that is an id.
fn after(cursor: Option<&str>) -> Result<&str, Fault> {
    let after = cursor.unwrap_or_default();
    if !after.is_empty() {
        rest::name("cursor", after)?;
    }
    Ok(after)
}

/// A body that has nothing to say.
fn nothing(body: &Payload) -> Result<(), Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    body.read::<Nothing>().map(|Nothing {}| ())
}
