//! Sending somebody to a provider, and knowing them when they come back: the same browser, in time, once.

use kernel::Problem;
use projections::identity::NewCode;
use rest::Origin;
use serde_json::json;

use super::outside::Arrived;
use super::proof::{Enough, Proof};
use super::{Accounts, Inner, Me};
use crate::oauth::{Outside, Provider, Providers, Returned, Round};

/// How long somebody may take at a provider.
pub(crate) const ROUND_SECONDS: u32 = 600;
const PURPOSE: &str = "oauth";

/// Somebody is to be sent to a provider.
#[derive(Clone)]
pub struct Departure {
    /// There.
    pub url: String,
    /// Tells rounds of one browser apart; it is no secret.
    pub(crate) name: String,
    /// What only this browser is to have.
    pub(crate) browser: String,
}

/// What came back.
pub(crate) struct Return {
    pub(crate) provider: Provider,
    pub(crate) state: String,
    /// A code, or the provider's no.
    pub(crate) answer: Result<String, String>,
    pub(crate) issuer: Option<String>,
}

/// What came of it.
pub(crate) enum Came {
    /// Somebody who signs in.
    Arrived(Arrived),
    /// Somebody who was signed in has linked it.
    Linked(Me),
}

/// The one answer to a return that belongs to no departure of this browser.
fn invalid_state() -> Problem {
    let detail = "This is not the end of anything that was begun here, or it was too long ago. Start again.";
    Problem::new(422, "invalid_state", detail)
}

/// The name under which a browser keeps what belongs to a state.
pub(crate) fn name_of(state: &str) -> Option<&str> {
    state.get(..8).filter(|_| state.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)))
}

impl Accounts {
    /// The providers by which somebody may sign in.
    #[must_use]
    pub fn providers(&self) -> &Providers {
        &self.0.providers
    }

    /// Sends somebody to a provider, to sign in.
    ///
    /// # Errors
    /// 404 `unknown_provider`, 429, 503.
    pub async fn depart(&self, provider: Provider, from: &Origin) -> Result<Departure, Problem> {
        self.count_from("oauth", from).await?;
        self.send(provider, None).await
    }

    /// Sends somebody who is signed in to a provider, to link what is there. A session that was left open is not enough for
    /// another way in.
    ///
    /// # Errors
    /// 404 `unknown_provider`, 403 `email_not_confirmed` or as [`Proof`] is not enough, 429, 503.
    pub async fn depart_to_link(
        &self,
        provider: Provider,
        person: &str,
        session: &str,
        proof: Proof,
        from: &Origin,
    ) -> Result<Departure, Problem> {
        self.count_from("oauth", from).await?;
        self.prove(person, proof, Enough::Fresh, from).await?;
        self.may_link(person).await?;
        self.send(provider, Some((person, session))).await
    }

    async fn send(&self, provider: Provider, link: Option<(&str, &str)>) -> Result<Departure, Problem> {
        let round = Round::begin(&self.digests.code);
        let url = self.0.providers.authorize(provider, &self.redirect_uri(provider), &round).await?;
        let kept = NewCode {
            digest: self.digests.code.digest(round.state.as_bytes()),
            purpose: PURPOSE,
            person: link.map(|(person, _)| person.to_owned()),
            detail: json!({ "provider": provider.as_str(), "session": link.map(|(_, session)| session) }),
            lifetime_seconds: f64::from(ROUND_SECONDS),
        };
        self.codes.keep(&kept).await?;
        let name = name_of(&round.state).unwrap_or_default().to_owned();
        Ok(Departure { url: url.into(), name, browser: round.browser })
    }

    /// Takes somebody back. `browser` is what their browser kept.
    ///
    /// # Errors
    /// 422 `invalid_state` or `provider_refused`, 403 `provider_denied` or `email_not_verified`, 409 `account_exists`,
    /// `linked_to_another` or `linked_elsewhere`, 401 `session_over`, 429, 503.
    pub(crate) async fn take_back(
        &self,
        returned: Return,
        browser: Option<&str>,
        from: &Origin,
    ) -> Result<Came, Problem> {
        self.count_from("oauth", from).await?;
        let round = Round::of(&returned.state, &self.digests.code);
        // First of all, and without a trace: nobody ends what another browser has begun.
        if browser != Some(&round.browser) {
            return Err(invalid_state());
        }
        let digest = self.digests.code.digest(round.state.as_bytes());
        let (person, detail) = self.codes.take(&digest, PURPOSE).await?.ok_or_else(invalid_state)?;
        if detail["provider"] != returned.provider.as_str() {
            return Err(invalid_state());
        }
        let code = returned.answer.map_err(|error| {
            tracing::info!(error, "a provider sent somebody back without a code");
            Problem::new(403, "provider_denied", "The provider did not let you in, or you did not want it to.")
        })?;
        let outside = self.identify(returned.provider, &code, returned.issuer.as_deref(), &round).await?;
        match person {
            None => Ok(Came::Arrived(self.arrive(&outside, from).await?)),
            Some(person) => {
                let session = detail["session"].as_str().unwrap_or_default();
                // Whoever signed out meanwhile, or was signed out, links nothing.
                if self.sessions.holder(session).await?.as_ref() != Some(&person) {
                    return Err(Problem::new(401, "session_over", "This session is over; log in again."));
                }
                Ok(Came::Linked(self.link(&person, &outside).await?))
            }
        }
    }
}

impl Inner {
    async fn identify(
        &self,
        provider: Provider,
        code: &str,
        issuer: Option<&str>,
        round: &Round,
    ) -> Result<Outside, Problem> {
        let redirect_uri = self.redirect_uri(provider);
        self.providers.identify(provider, Returned { code, issuer, redirect_uri: &redirect_uri, round }).await
    }

    /// Where providers send people back to; it is registered with them.
    fn redirect_uri(&self, provider: Provider) -> String {
        format!("{}/v1/auth/oauth/{}/callback", self.signing.names().issuer, provider.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_is_none_names_no_cookie() {
        assert_eq!(name_of("abcDEF-_0123"), Some("abcDEF-_"));
        for bad in ["", "short", "abcdefgh;x", "abcdefgh x", "äbcdefghij"] {
            assert_eq!(name_of(bad), None, "{bad}");
        }
    }
}
