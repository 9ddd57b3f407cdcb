//! Something that behaves like GitHub: errors under status 200, scopes with commas, numbers for ids, forms unless asked for
//! JSON.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::provider::SECRET;

type Parameters = BTreeMap<String, String>;

/// Where it is, and what it is told.
pub(crate) struct Github {
    pub(crate) url: String,
    state: Shared,
}

type Shared = Arc<Mutex<Inside>>;

#[derive(Default)]
struct Inside {
    users: BTreeMap<String, (Value, Value)>,
    /// Code: who, and the challenge.
    codes: BTreeMap<String, (String, String)>,
    broken: BTreeMap<&'static str, u16>,
    given: usize,
}

impl Github {
    /// With Ann, whose address is confirmed there.
    pub(crate) async fn start() -> Self {
        let state = Shared::default();
        let routes = axum::Router::new()
            .route("/login/oauth/authorize", get(authorize))
            .route("/login/oauth/access_token", post(token))
            .route("/user", get(user))
            .route("/user/emails", get(emails))
            .with_state(Arc::clone(&state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let github = Self { url, state };
        let addresses = json!([{ "email": "ann@example.org", "primary": true, "verified": true, "visibility": null }]);
        github.user("ann", json!({ "id": 1, "login": "ann", "name": "Ann", "email": null }), addresses);
        github
    }

    /// Somebody's profile and addresses, from here on.
    pub(crate) fn user(&self, who: &str, profile: Value, addresses: Value) {
        self.state.lock().unwrap().users.insert(who.to_owned(), (profile, addresses));
    }

    /// What `token` or `user` answers from here on.
    pub(crate) fn breaks(&self, what: &'static str, status: u16) {
        self.state.lock().unwrap().broken = BTreeMap::from([(what, status)]);
    }
}

async fn authorize(State(state): State<Shared>, Query(asked): Query<Parameters>) -> Response {
    assert_eq!((asked["client_id"].as_str(), asked["scope"].as_str()), ("air", "read:user user:email"));
    assert_eq!(asked["code_challenge_method"], "S256");
    let mut inside = state.lock().unwrap();
    inside.given += 1;
    let code = format!("code{}", inside.given);
    inside.codes.insert(code.clone(), (asked["login_hint"].clone(), asked["code_challenge"].clone()));
    let back = format!("{}?code={code}&state={}", asked["redirect_uri"], asked["state"]);
    (StatusCode::FOUND, [(header::LOCATION, back)]).into_response()
}

async fn token(State(state): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let form = format!("http://form/?{body}").parse::<Url>().unwrap();
    let form: Parameters = form.query_pairs().into_owned().collect();
    let mut inside = state.lock().unwrap();
    if let Some(status) = inside.broken.get("token") {
        return (StatusCode::from_u16(*status).unwrap(), [(header::LOCATION, "http://127.0.0.1:1/")]).into_response();
    }
    if headers[header::ACCEPT] != "application/json" {
        return "error=not_json".into_response();
    }
    let error =
        |code: &str| Json(json!({ "error": code, "error_description": "no", "error_uri": "x" })).into_response();
    if form["client_id"] != "air" || form["client_secret"] != SECRET {
        return error("incorrect_client_credentials");
    }
    let Some((who, challenge)) = inside.codes.remove(&form["code"]) else { return error("bad_verification_code") };
    if URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"])) != challenge {
        return error("bad_verification_code");
    }
    let token = format!("gho_{who}");
    Json(json!({ "access_token": token, "scope": "read:user,user:email", "token_type": "bearer" })).into_response()
}

/// Who holds the token.
fn holder(state: &Shared, headers: &HeaderMap) -> Result<(Value, Value), StatusCode> {
    let inside = state.lock().unwrap();
    if let Some(status) = inside.broken.get("user") {
        return Err(StatusCode::from_u16(*status).unwrap());
    }
    if !headers.contains_key(header::USER_AGENT) {
        return Err(StatusCode::FORBIDDEN);
    }
    let token = headers[header::AUTHORIZATION].to_str().unwrap().strip_prefix("Bearer gho_");
    token.and_then(|who| inside.users.get(who)).cloned().ok_or(StatusCode::UNAUTHORIZED)
}

async fn user(State(state): State<Shared>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    holder(&state, &headers).map(|(profile, _)| Json(profile))
}

async fn emails(State(state): State<Shared>, headers: HeaderMap) -> Result<Json<Value>, StatusCode> {
    holder(&state, &headers).map(|(_, addresses)| Json(addresses))
}
