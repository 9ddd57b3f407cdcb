//! Google, or any other provider that speaks OpenID Connect.

use runtime::clock;
use url::Url;

use super::discovery::{Discovery, Doors};
use super::exchange::{Client, exchange};
use super::id_token::{Expected, key_of, verify};
use super::keys::{Document, KeyCache};
use super::web::{Web, ask};
use super::{Outside, Provider, Returned, Round, Unvouched};
use crate::names::Email;

/// Google, or something that behaves like it.
pub struct Google {
    client: Client,
    discovery: Discovery,
    keys: KeyCache,
    web: Web,
}

fn refused(reason: &str) -> Unvouched {
    Unvouched::Refused(format!("the ID token is not believed: {reason}"))
}

impl Google {
    /// With what the provider gave us, and who it is.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn new(client_id: &str, client_secret: &str, issuer: &str) -> Result<Self, String> {
        Ok(Self {
            client: Client { id: client_id.to_owned(), secret: client_secret.to_owned() },
            discovery: Discovery::new(issuer)?,
            keys: KeyCache::default(),
            web: Web::new()?,
        })
    }

    pub(super) async fn authorize(&self, redirect_uri: &str, round: &Round) -> Result<Url, Unvouched> {
        let doors = self.discovery.doors(&self.web).await?;
        let mut url = Url::parse(&doors.authorization_endpoint)
            .map_err(|error| Unvouched::Misconfigured(format!("the authorization endpoint is no URL: {error}")))?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client.id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", "openid email profile")
            .append_pair("state", &round.state)
            .append_pair("nonce", &round.nonce)
            .append_pair("code_challenge", &round.challenge())
            .append_pair("code_challenge_method", "S256");
        Ok(url)
    }

    pub(super) async fn identify(&self, returned: Returned<'_>) -> Result<Outside, Unvouched> {
        let doors = self.discovery.doors(&self.web).await?;
        let issuer = self.discovery.issuer();
        let says_who = doors.authorization_response_iss_parameter_supported;
        if returned.issuer.is_some_and(|said| said != issuer) || (says_who && returned.issuer.is_none()) {
            return Err(Unvouched::Refused("another provider sent them back".to_owned()));
        }
        let granted = exchange(&self.web, &doors.token_endpoint, &self.client, &returned).await?;
        let token = granted.id_token.ok_or_else(|| refused("there is none"))?;
        let kid = key_of(&token).map_err(refused)?;
        let key =
            self.keys.key(&kid, || self.ask_keys(&doors)).await?.ok_or_else(|| refused("nobody knows its key"))?;
        let expected =
            Expected { issuer, audience: &self.client.id, nonce: &returned.round.nonce, now: clock::now().timestamp() };
        let said = verify(&token, &key, &expected).map_err(refused)?;
        let email = said.email.and_then(|text| Email::parse(&text).ok());
        Ok(Outside {
            provider: Provider::Google,
            subject: format!("{issuer} {}", said.subject),
            email: email.map(|email| (email, said.email_verified)),
            name: said.name,
        })
    }

    async fn ask_keys(&self, doors: &Doors) -> Result<Document, Unvouched> {
        let reply = ask("the keys", self.web.get(&doors.jwks_uri)).await?;
        let set = reply.is_success().then(|| reply.json()).flatten();
        let set = set.ok_or_else(|| Unvouched::Away(format!("the keys: it answered {} and none", reply.status)))?;
        Ok(Document { set, max_age: reply.max_age })
    }
}
