//! GitHub: OAuth 2.0, and then its API is asked who the token belongs to.

use reqwest::RequestBuilder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::exchange::{Client, exchange};
use super::web::{Web, ask};
use super::{Outside, Provider, Returned, Round, Unvouched, address};
use crate::names::Email;

/// GitHub, or something that behaves like it.
pub struct Github {
    client: Client,
    authorize_url: Url,
    token_url: Url,
    api_url: String,
    web: Web,
}

#[derive(Deserialize)]
struct User {
    /// Stays, while `login` can be given up and taken by somebody else.
    id: u64,
    login: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Address {
    email: String,
    primary: bool,
    verified: bool,
}

impl Github {
    /// With what GitHub gave us, and where it is.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn new(
        client_id: &str,
        client_secret: &str,
        authorize_url: &str,
        token_url: &str,
        api_url: &str,
    ) -> Result<Self, String> {
        Ok(Self {
            client: Client { id: client_id.to_owned(), secret: client_secret.to_owned() },
            authorize_url: address(authorize_url)?,
            token_url: address(token_url)?,
            api_url: address(api_url)?.as_str().trim_end_matches('/').to_owned(),
            web: Web::new()?,
        })
    }

    pub(super) fn authorize(&self, redirect_uri: &str, round: &Round) -> Url {
        let mut url = self.authorize_url.clone();
        url.query_pairs_mut()
            .append_pair("client_id", &self.client.id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", "read:user user:email")
            .append_pair("state", &round.state)
            .append_pair("code_challenge", &round.challenge())
            .append_pair("code_challenge_method", "S256");
        url
    }

    pub(super) async fn identify(&self, returned: Returned<'_>) -> Result<Outside, Unvouched> {
        let granted = exchange(&self.web, self.token_url.as_str(), &self.client, &returned).await?;
        let token = granted.access_token.ok_or_else(|| Unvouched::Refused("there is no access token".to_owned()))?;
        let user: User = self.api("the profile", self.get("/user", &token)).await?;
        let addresses: Vec<Address> = self.api("the addresses", self.get("/user/emails", &token)).await?;
        // `/user` has an address, too: one to show, which nobody has confirmed.
        let email = addresses.into_iter().find(|address| address.primary && address.verified);
        let email = email.and_then(|address| Email::parse(&address.email).ok());
        Ok(Outside {
            provider: Provider::Github,
            subject: format!("{} {}", self.api_url, user.id),
            email: email.map(|email| (email, true)),
            name: user.name.or(user.login),
        })
    }

    fn get(&self, path: &str, token: &str) -> RequestBuilder {
        let question = self.web.get(&format!("{}{path}", self.api_url)).bearer_auth(token);
        question.header("accept", "application/vnd.github+json").header("x-github-api-version", "2022-11-28")
    }

    async fn api<T: DeserializeOwned>(&self, what: &str, question: RequestBuilder) -> Result<T, Unvouched> {
        let reply = ask(what, question).await?;
        let read = reply.is_success().then(|| reply.json()).flatten();
        read.ok_or_else(|| Unvouched::Refused(format!("{what}: it answered {} and nothing readable", reply.status)))
    }
}
