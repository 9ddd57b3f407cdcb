//! Signing in with an account elsewhere: at Google by OpenID Connect, at GitHub by OAuth 2.0, which is no way to sign in until
//! one asks who the holder of the token is.
//!
//! What comes out is who somebody is *there* ([`Outside`]). What that means here is decided in `accounts/outside.rs`.

mod discovery;
mod exchange;
mod github;
mod google;
mod id_token;
mod keys;
mod round;
mod web;

use std::fmt;

use kernel::Problem;
use url::{Host, Url};

use crate::names::Email;

pub use github::Github;
pub use google::Google;
pub(crate) use round::Round;

/// Who vouches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provider {
    /// By OpenID Connect.
    Google,
    /// By OAuth 2.0 and its API.
    Github,
}

impl Provider {
    /// By its name in paths, events and rows.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Google, Self::Github].into_iter().find(|provider| provider.as_str() == name)
    }

    /// Its name in paths, events and rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Google => "google",
            Self::Github => "github",
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Google => "Google",
            Self::Github => "GitHub",
        }
    }
}

/// Who somebody is at a provider.
#[derive(Clone, PartialEq, Eq)]
pub struct Outside {
    /// Where.
    pub provider: Provider,
    /// Who: the provider's address and its own id for them, which never goes to somebody else. Not their e-mail address.
    pub subject: String,
    /// Their address, and whether the provider knows it to be theirs.
    pub email: Option<(Email, bool)>,
    /// What they are called.
    pub name: Option<String>,
}

// Personal data does not belong in a log.
impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outside").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// Why nobody has been vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unvouched {
    /// The provider said no, or what came cannot be believed. The reason is for our log.
    Refused(String),
    /// The provider cannot be asked now.
    Away(String),
    /// The provider does not know us: what is configured here or there is wrong.
    Misconfigured(String),
}

impl From<Unvouched> for Problem {
    fn from(unvouched: Unvouched) -> Self {
        match unvouched {
            Unvouched::Refused(reason) => {
                tracing::info!(reason, "a provider vouched for nobody");
                Self::new(422, "provider_refused", "The provider did not confirm who you are. Start again.")
            }
            Unvouched::Away(reason) => {
                tracing::warn!(reason, "a provider cannot be asked");
                Self::new(503, "provider_unavailable", "The provider cannot be asked right now. Start again later.")
                    .retry_after(5_000)
            }
            Unvouched::Misconfigured(reason) => {
                tracing::error!(reason, "a provider does not accept us: look at [oauth]");
                Self::new(503, "provider_unavailable", "The provider does not accept this server; it has been logged.")
                    .retry_after(60_000)
            }
        }
    }
}

/// What came back from a provider, with what had been sent there.
pub(crate) struct Returned<'a> {
    /// The code.
    pub(crate) code: &'a str,
    /// Who says so (RFC 9207).
    pub(crate) issuer: Option<&'a str>,
    /// Where they came back to.
    pub(crate) redirect_uri: &'a str,
    /// What belongs to the state that came back.
    pub(crate) round: &'a Round,
}

/// The providers that are configured.
#[derive(Default)]
pub struct Providers {
    /// By OpenID Connect.
    pub google: Option<Google>,
    /// By OAuth 2.0.
    pub github: Option<Github>,
}

impl Providers {
    /// Those that are there.
    pub(crate) fn all(&self) -> impl Iterator<Item = Provider> {
        let google = self.google.is_some().then_some(Provider::Google);
        let github = self.github.is_some().then_some(Provider::Github);
        google.into_iter().chain(github)
    }

    /// Where to send somebody.
    pub(crate) async fn authorize(
        &self,
        provider: Provider,
        redirect_uri: &str,
        round: &Round,
    ) -> Result<Url, Problem> {
        match (provider, &self.google, &self.github) {
            (Provider::Google, Some(google), _) => Ok(google.authorize(redirect_uri, round).await?),
            (Provider::Github, _, Some(github)) => Ok(github.authorize(redirect_uri, round)),
            _ => Err(unknown()),
        }
    }

    /// Who came back.
    pub(crate) async fn identify(&self, provider: Provider, returned: Returned<'_>) -> Result<Outside, Problem> {
        match (provider, &self.google, &self.github) {
            (Provider::Google, Some(google), _) => Ok(google.identify(returned).await?),
            (Provider::Github, _, Some(github)) => Ok(github.identify(returned).await?),
            _ => Err(unknown()),
        }
    }
}

/// The answer to a provider that is none, or none here.
pub(crate) fn unknown() -> Problem {
    Problem::new(404, "unknown_provider", "This provider is not configured; `GET /v1/auth/oauth` lists those that are.")
}

/// Reads the address of a provider: HTTPS, or HTTP on this machine, where a test or a developer runs one.
///
/// # Errors
/// A sentence that says what it should be.
pub fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("'{text}' is no URL: {error}"))?;
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let secret = url.scheme() == "https" || (url.scheme() == "http" && here);
    match secret && url.username().is_empty() && url.password().is_none() && url.fragment().is_none() {
        true => Ok(url),
        false => Err(format!("'{text}' is not https://…, nor http:// on this machine, without user and fragment")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_to_a_provider_is_read_by_nobody_on_the_way() {
        for good in ["https://accounts.google.com", "http://localhost:8202", "http://127.0.0.1:1/a", "http://[::1]:1"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "http://accounts.google.com",
            "accounts.google.com",
            "ftp://localhost",
            "https://u:p@host",
            "https://host/#x",
            "http://localhost.example.org",
            "http://10.0.0.1",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
