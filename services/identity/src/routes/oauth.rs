//! `/v1/auth/oauth` and `/v1/me/links`: signing in with an account elsewhere.
//!
//! What ties a browser to its departure is a cookie of ten minutes. It is the only cookie that identity uses, and it lets
//! nobody in.

use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, COOKIE, HeaderName, HeaderValue, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use kernel::Problem;
use rest::{Fault, Origin, Payload, Query, Segment, SignedIn, documents};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Tokens;
use super::{person, proof, to_the_end};
use crate::accounts::{Accounts, Arrived, Came, Continuation, Departure, Me, ROUND_SECONDS, Return, name_of};
use crate::oauth::{Provider, unknown};
use crate::password::Password;

pub(super) fn router() -> OpenApiRouter<Accounts> {
    OpenApiRouter::new()
        .routes(routes!(callback))
        .route_layer(from_fn(to_the_end::everything))
        .routes(routes!(providers))
        .routes(routes!(start))
        .routes(routes!(go_on))
        .routes(routes!(link, unlink))
}

fn provider(name: &str) -> Result<Provider, Problem> {
    Provider::of(name).ok_or_else(unknown)
}

/// The providers that are configured.
#[derive(Serialize, ToSchema)]
struct Configured {
    /// Their names in paths.
    #[schema(example = json!(["google", "github"]))]
    providers: Vec<&'static str>,
}

/// Lists the providers by which one may sign in.
#[utoipa::path(get, path = "/v1/auth/oauth", tag = "auth", security(()), responses((status = 200, body = Configured)))]
async fn providers(State(accounts): State<Accounts>) -> Json<Configured> {
    Json(Configured { providers: accounts.providers().all().map(Provider::as_str).collect() })
}

/// Sends a browser to a provider.
///
/// It comes back to `/v1/auth/oauth/{provider}/callback`, within ten minutes and once.
#[utoipa::path(get, path = "/v1/auth/oauth/{provider}/start", tag = "auth", security(()),
    params(("provider" = String, Path, description = "`google` or `github`")),
    responses((status = 303, description = "To the provider"), (status = 404, body = documents::Problem), (status = 503, body = documents::Problem)))]
async fn start(State(accounts): State<Accounts>, origin: Origin, Segment(name): Segment) -> Result<Response, Fault> {
    let departure = accounts.depart(provider(&name)?, &origin).await?;
    let location = HeaderValue::from_str(&departure.url).map_err(|_| unknown())?;
    let headers = [(LOCATION, location), (SET_COOKIE, cookie(&accounts, &departure)?), NO_STORE];
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Back {
    /// What was sent along.
    state: Option<String>,
    /// For a token.
    code: Option<String>,
    /// The provider's no.
    error: Option<String>,
    /// Who says so (RFC 9207).
    iss: Option<String>,
}

/// A second factor is asked for.
#[derive(Serialize, ToSchema)]
struct Asked {
    /// Always `second_factor_required`.
    #[schema(example = "second_factor_required")]
    status: &'static str,
    /// Send it to `/v1/auth/oauth/continue` with the second factor, within five minutes.
    #[schema(example = "aoc_4f3Hk2mQ9sT1vW7yZ0bC5dE8gJ2nP6rX")]
    continuation: String,
}

/// Takes a browser back from a provider.
///
/// Somebody who is linked is signed in; for somebody whom nobody knows here an account is made, if the provider has confirmed
/// their e-mail address. An address that has an account already leads to no account: 409 `account_exists`.
#[utoipa::path(get, path = "/v1/auth/oauth/{provider}/callback", tag = "auth", security(()),
    params(("provider" = String, Path, description = "`google` or `github`"), Back),
    responses((status = 200, description = "Signed in; or, for somebody who was signed in, linked: then their profile", body = Tokens),
        (status = 202, body = Asked), (status = 403, body = documents::Problem),
        (status = 409, body = documents::Problem), (status = 422, body = documents::Problem), (status = 503, body = documents::Problem)))]
async fn callback(
    State(accounts): State<Accounts>,
    origin: Origin,
    Segment(name): Segment,
    Query(back): Query<Back>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let provider = provider(&name)?;
    let state = back.state.unwrap_or_default();
    let answer = match (back.code, back.error) {
        (Some(code), None) => Ok(code),
        (_, error) => Err(error.unwrap_or_else(|| "neither a code nor an error".to_owned())),
    };
    let cookie = name_of(&state).and_then(|name| kept(&headers, &cookie_name(&accounts, name)));
    let returned = Return { provider, state, answer, issuer: back.iss };
    let came = accounts.take_back(returned, cookie.as_deref(), &origin).await?;
    let response = match came {
        Came::Arrived(Arrived::In(logged_in)) => Json(Tokens::from(*logged_in)).into_response(),
        Came::Arrived(Arrived::Asked { continuation }) => {
            let asked = Asked { status: "second_factor_required", continuation };
            (StatusCode::ACCEPTED, Json(asked)).into_response()
        }
        Came::Linked(me) => Json(me).into_response(),
    };
    Ok(([NO_STORE], response).into_response())
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "continuation": "aoc_4f3Hk2mQ9sT1vW7yZ0bC5dE8gJ2nP6rX", "totp": "492039" }))]
struct Continue {
    /// As the callback gave it.
    #[schema(example = "aoc_4f3Hk2mQ9sT1vW7yZ0bC5dE8gJ2nP6rX")]
    continuation: String,
    /// The code of the authenticator.
    #[schema(example = "492039")]
    totp: Option<String>,
    /// A recovery code in its place.
    recovery_code: Option<String>,
}

/// Sends the second factor of somebody who came back from a provider.
#[utoipa::path(post, path = "/v1/auth/oauth/continue", tag = "auth", security(()), request_body = Continue,
    responses((status = 200, body = Tokens), (status = 401, body = documents::Problem), (status = 422, body = documents::Problem), (status = 429, body = documents::Problem)))]
async fn go_on(State(accounts): State<Accounts>, origin: Origin, body: Payload) -> Result<Json<Tokens>, Fault> {
    let Continue { continuation, totp, recovery_code } = body.read()?;
    let continuation = Continuation { continuation, totp, recovery: recovery_code };
    Ok(Json(accounts.go_on(continuation, &origin).await?.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Link {
    /// Needed ten minutes after signing in.
    #[schema(value_type = Option<String>, format = Password, example = "correct horse battery")]
    password: Option<Password>,
}

/// Where to send the browser.
#[derive(Serialize, ToSchema)]
struct There {
    /// The provider's page. The browser that goes there must have got the cookie of this answer.
    #[schema(example = "https://accounts.google.com/o/oauth2/v2/auth?client_id=air")]
    authorization_url: String,
    /// Seconds until it is too late to come back.
    #[schema(example = 600)]
    expires_in: u32,
}

/// Begins to link an account elsewhere to one's own.
///
/// One's own e-mail address must be confirmed. What comes back to the callback is linked while this session goes on.
#[utoipa::path(post, path = "/v1/me/links/{provider}", tag = "me", security(("token" = ["me"])), request_body = Link,
    params(("provider" = String, Path, description = "`google` or `github`")),
    responses((status = 200, body = There), (status = 403, body = documents::Problem), (status = 404, body = documents::Problem), (status = 503, body = documents::Problem)))]
async fn link(
    State(accounts): State<Accounts>,
    signed: SignedIn,
    origin: Origin,
    Segment(name): Segment,
    body: Payload,
) -> Result<Response, Fault> {
    let (id, session) = person(&signed)?;
    let Link { password } = body.read()?;
    let proof = proof(&signed, password)?;
    let departure = accounts.depart_to_link(provider(&name)?, id, session, proof, &origin).await?;
    let cookie = cookie(&accounts, &departure)?;
    let there = There { authorization_url: departure.url, expires_in: ROUND_SECONDS };
    Ok(([(SET_COOKIE, cookie), NO_STORE], Json(there)).into_response())
}

/// Unlinks an account elsewhere from one's own.
///
/// Not the last way to sign in: 409 `last_way_in`.
#[utoipa::path(delete, path = "/v1/me/links/{provider}", tag = "me", security(("token" = ["me"])),
    params(("provider" = String, Path, description = "`google` or `github`")),
    responses((status = 200, body = Me), (status = 404, body = documents::Problem), (status = 409, body = documents::Problem)))]
async fn unlink(State(accounts): State<Accounts>, signed: SignedIn, Segment(name): Segment) -> Result<Json<Me>, Fault> {
    let (id, _) = person(&signed)?;
    Ok(Json(accounts.unlink(id, provider(&name)?).await?))
}

const NO_STORE: (HeaderName, HeaderValue) = (CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// Whether browsers reach us by TLS.
fn is_secure(accounts: &Accounts) -> bool {
    accounts.signing.names().issuer.starts_with("https://")
}

/// Over TLS with a prefix that lets nobody else set it, not even a neighbouring host (RFC 6265bis).
fn cookie_name(accounts: &Accounts, name: &str) -> String {
    let prefix = if is_secure(accounts) { "__Host-" } else { "" };
    format!("{prefix}airstream_oauth_{name}")
}

/// The provider's answer is a navigation from its site to ours: with `Lax` the cookie comes along.
fn cookie(accounts: &Accounts, departure: &Departure) -> Result<HeaderValue, Problem> {
    let name = cookie_name(accounts, &departure.name);
    let secure = if is_secure(accounts) { "; Secure" } else { "" };
    let value = &departure.browser;
    let text = format!("{name}={value}; Path=/; Max-Age={ROUND_SECONDS}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::from_str(&text).map_err(|_| Problem::new(500, "defect", "A cookie cannot be written."))
}

fn kept(headers: &HeaderMap, name: &str) -> Option<String> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    cookies.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; airstream_oauth_x=yes==; b"));
        headers.append(COOKIE, HeaderValue::from_static("c=2"));
        assert_eq!(kept(&headers, "airstream_oauth_x").as_deref(), Some("yes=="));
        assert_eq!(kept(&headers, "c").as_deref(), Some("2"));
        assert_eq!((kept(&headers, "airstream_oauth_"), kept(&headers, "b")), (None, None));
    }
}
