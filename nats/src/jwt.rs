//! The two documents that an authorisation callout exchanges, as JSON Web Tokens with NATS' own signature
//! (`ed25519-nkey`, nats-architecture-and-design ADR-26).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use kernel::Timestamp;
use nkeys::KeyPair;
use serde::Deserialize;
use serde_json::{Value, json};

use super::callout::Admitted;

/// What a server asks.
#[derive(Debug, Deserialize)]
pub(crate) struct Question {
    #[serde(rename = "aud")]
    audience: String,
    #[serde(rename = "sub")]
    issuer: String,
    nats: Asked,
}

#[derive(Debug, Deserialize)]
struct Asked {
    server_id: Server,
    user_nkey: String,
    client_info: Client,
    connect_opts: Options,
}

#[derive(Debug, Deserialize)]
struct Server {
    id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Client {
    host: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    auth_token: String,
    pass: String,
    name: String,
}

impl Question {
    /// Reads one. Its signature is not looked at: only servers publish in the account in which it is asked.
    pub(crate) fn read(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is encrypted, or not a token".to_owned())?;
        let claims = text.split('.').nth(1).ok_or("it has no claims")?;
        let claims = BASE64.decode(claims).map_err(|error| error.to_string())?;
        let question: Self = serde_json::from_slice(&claims).map_err(|error| error.to_string())?;
        match question.audience.as_str() {
            "nats-authorization-request" => Ok(question),
            other => Err(format!("it is for `{other}`")),
        }
    }

    /// Whose signature the server believes.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The token, or else the password.
    pub(crate) fn secret(&self) -> &str {
        let options = &self.nats.connect_opts;
        if options.auth_token.is_empty() { &options.pass } else { &options.auth_token }
    }

    /// Where the client is.
    pub(crate) fn host(&self) -> &str {
        &self.nats.client_info.host
    }

    /// What it calls itself.
    pub(crate) fn program(&self) -> &str {
        &self.nats.connect_opts.name
    }

    /// The answer: who it is and what it may do in an account, or why it may not come in.
    pub(crate) fn answer(
        &self,
        signer: &KeyPair,
        account: &str,
        now: Timestamp,
        admitted: Result<&Admitted, &str>,
    ) -> Result<String, nkeys::error::Error> {
        let decision = match admitted {
            Ok(admitted) => json!({ "jwt": self.user(signer, account, now, admitted)? }),
            Err(reason) => json!({ "error": reason }),
        };
        let mut nats = json!({ "type": "authorization_response", "version": 2 });
        merge(&mut nats, decision);
        let claims = json!({ "sub": self.nats.user_nkey, "aud": self.nats.server_id.id, "nats": nats });
        sign(signer, now, claims)
    }

    fn user(
        &self,
        signer: &KeyPair,
        account: &str,
        now: Timestamp,
        admitted: &Admitted,
    ) -> Result<String, nkeys::error::Error> {
        let mut claims = json!({
            "sub": self.nats.user_nkey,
            "aud": account,
            "name": admitted.name,
            "nats": {
                "pub": permission(&admitted.publish),
                "sub": permission(&admitted.subscribe),
                "subs": -1, "data": -1, "payload": -1,
                "type": "user", "version": 2,
            },
        });
        if let Some(end) = admitted.expires_at {
            merge(&mut claims, json!({ "exp": end.timestamp() }));
        }
        sign(signer, now, claims)
    }
}

/// An empty list of what is allowed would allow everything.
fn permission(subjects: &[String]) -> Value {
    if subjects.is_empty() { json!({ "deny": [">"] }) } else { json!({ "allow": subjects }) }
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

fn sign(signer: &KeyPair, now: Timestamp, mut claims: Value) -> Result<String, nkeys::error::Error> {
    merge(&mut claims, json!({ "iss": signer.public_key(), "iat": now.timestamp() }));
    let header = BASE64.encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let text = format!("{header}.{}", BASE64.encode(claims.to_string()));
    let signature = BASE64.encode(signer.sign(text.as_bytes())?);
    Ok(format!("{text}.{signature}"))
}
