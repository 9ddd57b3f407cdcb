//! What one person only can have: claimed before the event, held after it (ADR 0020).

use kernel::Problem;
use projections::identity::{Claim, Kind};

use super::Inner;
use crate::names::{Email, Username};
use crate::person::Person;

impl Inner {
    /// What something is found by. Of a provider's identity, the normal form is the provider's own id.
    pub(crate) fn handle(&self, kind: Kind, normal: &str) -> Vec<u8> {
        let digester = match kind {
            Kind::Email => &self.digests.email,
            Kind::Username => &self.digests.username,
            Kind::Google | Kind::Github => &self.digests.subject,
        };
        digester.digest(normal.as_bytes())
    }

    /// Claims something that one person can have. Inside, `Err`: who has it.
    pub(crate) async fn claim(&self, kind: Kind, digest: &[u8], person: &str) -> Result<Result<(), String>, Problem> {
        // Whoever claims at the same time as another claimant has given up comes round once more.
        for _ in 0..3 {
            match self.handles.claim(kind, digest, person).await? {
                Claim::Ours => return Ok(Ok(())),
                Claim::Held { person } | Claim::Claimed { person, old: false } => return Ok(Err(person)),
                Claim::Claimed { person: other, old: true } => {
                    // Whoever claimed it was interrupted: before it became theirs, or just after that.
                    let theirs = match self.person(&other).await? {
                        Some(found) => self.current(&found, kind).await?.as_deref() == Some(digest),
                        None => false,
                    };
                    if theirs {
                        self.handles.hold(kind, digest, &other).await?;
                        return Ok(Err(other));
                    }
                    self.handles.take_over(kind, digest, &other, person).await?;
                }
            }
        }
        Err(Problem::busy("Somebody else is registering the same right now.", 1_000))
    }

    /// What a person has of a kind, as their own stream says.
    pub(crate) async fn current(&self, person: &Person, kind: Kind) -> Result<Option<Vec<u8>>, Problem> {
        let normal = match kind {
            Kind::Email => {
                let text = self.open(&person.email, "email").await?;
                text.and_then(|text| Email::parse(&text).ok()).map(|email| email.normal().to_owned())
            }
            Kind::Username => {
                let text = self.open_if(person.username.as_ref(), "username").await?;
                text.and_then(|text| Username::parse(&text).ok()).map(|name| name.normal().to_owned())
            }
            Kind::Google | Kind::Github => self.open_if(person.links.get(kind.as_str()), "subject").await?,
        };
        Ok(normal.map(|normal| self.handle(kind, &normal)))
    }

    /// Holds what a person's stream says that they have, and gives back what they had before. After any order of changes and
    /// crashes, the last of these is right.
    pub(crate) async fn settle(&self, person: &str, kind: Kind) -> Result<(), Problem> {
        let settling = self.handles.settle(person).await?;
        let found = self.existing(person).await?;
        match self.current(&found, kind).await? {
            Some(digest) => Ok(settling.keep_only(kind, &digest).await?),
            None => Ok(()),
        }
    }
}
