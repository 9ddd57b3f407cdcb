//! How often something may be tried that can be guessed, or that sends mail to people.
//!
//! From one place nobody keeps somebody out elsewhere: every network has tries of its own for each account. Whoever attacks one
//! account from many networks does keep its owner from signing in by password, for as long as the attack goes on; a reset by
//! mail begins the count anew. What that owner has open goes on, and providers let in as before. Whoever shares a network with
//! a guesser shares its tries, too.

use std::fmt;

use kernel::Problem;
use projections::identity::Pace;
use rest::Origin;

use super::Inner;
use crate::names::{Email, Username};
use crate::person::Person;

/// From one address on one account.
const PAIR: Pace = Pace { burst: 5, every_seconds: 30.0 };
/// On one account, from wherever.
const ACCOUNT: Pace = Pace { burst: 30, every_seconds: 10.0 };
/// On the second factor of one account, by whoever knows its password: of a million codes three are right at a time.
const FACTOR: Pace = Pace { burst: 10, every_seconds: 60.0 };
/// From one address, on whatever.
const ADDRESS: Pace = Pace { burst: 100, every_seconds: 1.0 };
/// Invitations of one tenant, to whomever.
const INVITES: Pace = Pace { burst: 50, every_seconds: 60.0 };
/// Tenants that one person makes.
const TENANTS: Pace = Pace { burst: 20, every_seconds: 3_600.0 };
/// Mail of one sort to one address.
const MAIL: Pace = Pace { burst: 5, every_seconds: 300.0 };

/// Why a mail goes to an address. Each has a budget of its own: what others can make us send uses up nothing that the owner of
/// the address waits for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason<'a> {
    /// Somebody registered with it.
    Registered,
    /// Somebody registered with it once more, or asked for the code again, and nobody has confirmed it yet.
    Unconfirmed,
    /// Somebody registered with it, and it has an account.
    AccountExists,
    /// Somebody forgot their password.
    Forgot,
    /// Somebody wants it to be theirs from now on.
    Change,
    /// This tenant invites them. What another tenant did is not told.
    Invited(&'a str),
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered => f.write_str("registered"),
            Self::Unconfirmed => f.write_str("unconfirmed"),
            Self::AccountExists => f.write_str("account-exists"),
            Self::Forgot => f.write_str("forgot"),
            Self::Change => f.write_str("change"),
            Self::Invited(tenant) => write!(f, "invited {tenant}"),
        }
    }
}

impl Inner {
    /// Counts a try to sign in as `who` from `from`.
    pub(crate) async fn count_try(&self, what: &str, who: &str, from: &Origin) -> Result<(), Problem> {
        self.count(&format!("{what} pair {who} {}", from.network()), PAIR).await?;
        self.count(&format!("{what} account {who}"), ACCOUNT).await?;
        self.count_from(what, from).await
    }

    /// Counts a try from an address.
    pub(super) async fn count_from(&self, what: &str, from: &Origin) -> Result<(), Problem> {
        self.count(&format!("{what} address {}", from.network()), ADDRESS).await
    }

    /// Whoever was right has not been guessing, at this place.
    pub(crate) async fn forgive(&self, what: &str, who: &str, from: &Origin) -> Result<(), Problem> {
        let pair = self.digests.attempt.digest(format!("{what} pair {who} {}", from.network()).as_bytes());
        Ok(self.codes.forgive(&pair).await?)
    }

    /// Whoever has set another password by mail signs in with it, however often others, or they themselves, have tried before.
    pub(super) async fn forgive_login(&self, person: &Person, from: &Origin) -> Result<(), Problem> {
        let email = self.open(&person.email, "email").await?.and_then(|text| Email::parse(&text).ok());
        let username = self.open_if(person.username.as_ref(), "username").await?;
        let username = username.and_then(|text| Username::parse(&text).ok());
        let names = [email.map(|email| email.normal().to_owned()), username.map(|name| name.normal().to_owned())];
        for who in names.iter().flatten() {
            self.forgive("login", who, from).await?;
            let account = self.digests.attempt.digest(format!("login account {who}").as_bytes());
            self.codes.forgive(&account).await?;
        }
        Ok(())
    }

    /// Counts a code of a second factor.
    pub(super) async fn count_factor(&self, person: &str, from: &Origin) -> Result<(), Problem> {
        self.count(&format!("factor account {person}"), FACTOR).await?;
        self.count_from("factor", from).await
    }

    /// The code was right.
    pub(super) async fn forgive_factor(&self, person: &str) -> Result<(), Problem> {
        let account = self.digests.attempt.digest(format!("factor account {person}").as_bytes());
        Ok(self.codes.forgive(&account).await?)
    }

    /// Whether another mail may go to an address. Nobody is told: there may be no account. It is asked before anybody looks
    /// whether there is one, so that what is left tells nothing about that either.
    pub(super) async fn may_mail(&self, reason: Reason<'_>, address: &str) -> Result<bool, Problem> {
        let digest = self.digests.attempt.digest(format!("mail {reason} {address}").as_bytes());
        Ok(self.codes.attempt(&digest, MAIL).await?.is_ok())
    }

    /// Counts a tenant that somebody makes.
    pub(super) async fn count_tenant(&self, person: &str) -> Result<(), Problem> {
        self.count(&format!("tenant {person}"), TENANTS).await
    }

    /// Counts an invitation of a tenant to an address. Whether there is an account does not matter, so they may hear of it.
    pub(super) async fn count_invite(&self, tenant: &str, address: &str) -> Result<(), Problem> {
        self.count(&format!("invite {tenant}"), INVITES).await?;
        match self.may_mail(Reason::Invited(tenant), address).await? {
            true => Ok(()),
            false => {
                let detail = "This tenant has sent too many invitations to this address; wait some minutes.";
                Err(Problem::new(429, "too_many_tries", detail).retry_after(300_000))
            }
        }
    }

    async fn count(&self, what: &str, pace: Pace) -> Result<(), Problem> {
        let digest = self.digests.attempt.digest(what.as_bytes());
        match self.codes.attempt(&digest, pace).await? {
            Ok(()) => Ok(()),
            Err(again_at) => {
                let wait = (again_at - runtime::clock::now()).num_milliseconds().max(1_000);
                let detail = "Too many tries. Wait, or set a new password by mail.";
                Err(Problem::new(429, "too_many_tries", detail).retry_after(wait.unsigned_abs()))
            }
        }
    }
}
