//! What somebody says about themselves.

use kernel::{Problem, Sealed};
use projections::identity::Kind;
use runtime::clock;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Accounts, Inner};
use crate::names::Username;

/// A person as they see themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Me {
    /// Their id.
    #[schema(example = "usr_019aa1f0c3d47e2b9a0b1c2d3e4f5a6b")]
    pub id: String,
    /// Their address.
    #[schema(example = "ann@example.org")]
    pub email: Option<String>,
    /// Whether it is known to be theirs.
    pub email_confirmed: bool,
    /// A name to log in by.
    #[schema(example = "ann")]
    pub username: Option<String>,
    /// What they are called.
    #[schema(example = "Ann Bee")]
    pub name: Option<String>,
    /// Their language (BCP 47).
    #[schema(example = "en")]
    pub locale: Option<String>,
    /// Whether they have a password.
    pub has_password: bool,
    /// Whether a second factor is asked for.
    pub totp: bool,
    /// Providers by which they may sign in.
    #[schema(example = json!(["github"]))]
    pub linked: Vec<String>,
}

/// What is to be changed. What is absent stays.
#[derive(Debug, Default)]
pub struct ProfileEdit {
    /// A name to log in by.
    pub username: Option<Username>,
    /// What they are called; empty takes it away.
    pub name: Option<String>,
    /// Their language; empty takes it away.
    pub locale: Option<String>,
}

impl Inner {
    /// A person as they see themselves.
    pub(crate) async fn me(&self, id: &str) -> Result<Me, Problem> {
        let person = self.existing(id).await?;
        Ok(Me {
            id: id.to_owned(),
            email: self.open(&person.email, "email").await?,
            email_confirmed: person.email_confirmed,
            username: self.open_if(person.username.as_ref(), "username").await?,
            name: self.open_if(person.name.as_ref(), "name").await?,
            locale: person.locale.filter(|locale| !locale.is_empty()),
            has_password: person.passwords > 0,
            totp: person.totp,
            linked: person.links.into_keys().collect(),
        })
    }

    async fn seal_if(&self, person: &str, field: &str, text: Option<&str>) -> Result<Option<Sealed>, Problem> {
        match text {
            None => Ok(None),
            Some(text) => self.seal(person, field, text).await.map(Some),
        }
    }
}

impl Accounts {
    /// A person as they see themselves.
    ///
    /// # Errors
    /// 410 when they were erased, 503.
    pub async fn profile(&self, person: &str) -> Result<Me, Problem> {
        self.me(person).await
    }

    /// Changes what is said about a person.
    ///
    /// # Errors
    /// 409 `username_taken`, 503.
    pub async fn edit(&self, person: &str, edit: ProfileEdit) -> Result<Me, Problem> {
        let username = edit.username.as_ref();
        if let Some(name) = username
            && self.claim(Kind::Username, &self.handle(Kind::Username, name.normal()), person).await?.is_err()
        {
            return Err(Problem::new(409, "username_taken", "Somebody else has this username."));
        }
        let changed = events::person::ProfileChanged {
            username: self.seal_if(person, "username", username.map(Username::typed)).await?,
            name: self.seal_if(person, "name", edit.name.as_deref().map(str::trim)).await?,
            locale: edit.locale,
        };
        self.record(person, "change-profile", &changed, &clock::fresh_id("cmd_")).await?;
        if username.is_some() {
            self.settle(person, Kind::Username).await?;
        }
        self.me(person).await
    }
}
