//! Where an OpenID provider has its doors (OpenID Connect Discovery 1.0).

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::web::{Web, ask};
use super::{Unvouched, address};

/// How long the answer is believed.
const KEEP: Duration = Duration::from_secs(3_600);
/// How long until a provider is asked again that did not answer. Meanwhile nobody waits for it.
const RETRY: Duration = Duration::from_secs(5);

/// The doors of one provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Doors {
    issuer: String,
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    pub(super) jwks_uri: String,
    /// Whether it says on return who it is (RFC 9207).
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

/// One provider, and what is known of it.
pub(super) struct Discovery {
    issuer: String,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    doors: Option<Arc<Doors>>,
    /// When it is asked again.
    ask_at: Option<Instant>,
    /// Why the last question has no answer.
    trouble: Option<Unvouched>,
}

impl Discovery {
    pub(super) fn new(issuer: &str) -> Result<Self, String> {
        address(issuer)?;
        Ok(Self { issuer: issuer.to_owned(), known: Mutex::default() })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Its doors, as it said within the last hour. When it cannot be asked, what it said before.
    pub(super) async fn doors(&self, web: &Web) -> Result<Arc<Doors>, Unvouched> {
        // Whoever comes second waits for the answer to the first.
        let mut known = self.known.lock().await;
        if known.ask_at.is_none_or(|at| Instant::now() >= at) {
            let answer = self.ask(web).await;
            let pause = if answer.is_ok() { KEEP } else { RETRY };
            known.ask_at = Some(Instant::now() + pause);
            match answer {
                Ok(doors) => (known.doors, known.trouble) = (Some(Arc::new(doors)), None),
                Err(unvouched) => known.trouble = Some(unvouched),
            }
        }
        match (&known.doors, &known.trouble) {
            (Some(doors), _) => Ok(Arc::clone(doors)),
            (None, Some(unvouched)) => Err(unvouched.clone()),
            (None, None) => Err(Unvouched::Away("discovery: it was not asked".to_owned())),
        }
    }

    async fn ask(&self, web: &Web) -> Result<Doors, Unvouched> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let reply = ask("discovery", web.get(&url)).await?;
        let doors: Option<Doors> = reply.is_success().then(|| reply.json()).flatten();
        doors
            .ok_or_else(|| format!("it answered {} and nothing readable", reply.status))
            .and_then(|doors| check(&self.issuer, doors))
            .map_err(|reason| Unvouched::Misconfigured(format!("discovery at {}: {reason}", self.issuer)))
    }
}

/// A document that speaks of another issuer would have us trust that one.
fn check(issuer: &str, doors: Doors) -> Result<Doors, String> {
    if doors.issuer != issuer {
        return Err(format!("it speaks of another issuer, {}", doors.issuer));
    }
    for door in [&doors.authorization_endpoint, &doors.token_endpoint, &doors.jwks_uri] {
        address(door)?;
    }
    Ok(doors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_speaks_for_another_issuer_or_leads_to_an_open_door() {
        let doors = |issuer: &str, token: &str| Doors {
            issuer: issuer.into(),
            authorization_endpoint: "https://a.org/auth".into(),
            token_endpoint: token.into(),
            jwks_uri: "https://a.org/jwks".into(),
            authorization_response_iss_parameter_supported: false,
        };
        assert!(check("https://a.org", doors("https://a.org", "https://b.org/token")).is_ok());
        assert!(check("https://a.org", doors("https://b.org", "https://b.org/token")).is_err());
        assert!(check("https://a.org", doors("https://a.org/", "https://b.org/token")).is_err());
        assert!(check("https://a.org", doors("https://a.org", "http://b.org/token")).is_err());
    }
}
