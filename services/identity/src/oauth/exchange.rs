//! A code for a token (RFC 6749, 4.1.3).

use serde::Deserialize;

use super::web::{Web, ask};
use super::{Returned, Unvouched};

/// Who we are at a provider.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: String,
}

/// What a token endpoint says. GitHub says its errors under status 200.
#[derive(Deserialize)]
struct Tokens {
    access_token: Option<String>,
    id_token: Option<String>,
    error: Option<String>,
}

/// What a code was good for.
pub(super) struct Granted {
    pub(super) access_token: Option<String>,
    pub(super) id_token: Option<String>,
}

/// Errors that are about us and not about who came back.
const OURS: [&str; 6] = [
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_request",
    "incorrect_client_credentials",
    "redirect_uri_mismatch",
];

/// Exchanges a code, with the secret and the verifier that show that we are who sent them there.
pub(super) async fn exchange(
    web: &Web,
    token_url: &str,
    client: &Client,
    returned: &Returned<'_>,
) -> Result<Granted, Unvouched> {
    let question = web.post_form(
        token_url,
        &[
            ("grant_type", "authorization_code"),
            ("code", returned.code),
            ("redirect_uri", returned.redirect_uri),
            ("client_id", &client.id),
            ("client_secret", &client.secret),
            ("code_verifier", &returned.round.verifier),
        ],
    );
    let reply = ask("the token endpoint", question).await?;
    let tokens: Option<Tokens> = reply.json();
    match tokens {
        Some(Tokens { error: Some(error), .. }) => {
            // A provider's own words, but not without end.
            let error: String = error.chars().filter(|c| c.is_ascii_graphic()).take(64).collect();
            match OURS.contains(&error.as_str()) {
                true => Err(Unvouched::Misconfigured(format!("the token endpoint said {error}"))),
                false => Err(Unvouched::Refused(format!("the token endpoint said {error}"))),
            }
        }
        Some(Tokens { access_token, id_token, error: None }) if reply.is_success() => {
            Ok(Granted { access_token, id_token })
        }
        _ => Err(Unvouched::Refused(format!("the token endpoint answered {} without a token", reply.status))),
    }
}
