//! Rate limits: how often somebody may ask (ADR 0021).
//!
//! Every limit is a budget per address, user, key or tenant and per class of routes. Budgets are kept in Postgres, where all
//! instances share them. An instance takes a slice of one, a small share that lasts for a short time, and decides out of it
//! in memory ([`Limiter::decide`]); it asks again before the slice is used up, so whoever comes often never waits.
//!
//! **Invariant**: in any time `t`, all instances together let pass at most `requests + requests / seconds · t`.

mod budgets;
mod bus;
pub mod contract;
mod layer;
mod limiter;
mod slice;
mod terms;

use std::net::IpAddr;
use std::str::FromStr;

use kernel::{PrincipalId, TenantId};

pub use budgets::{Budgets, Failed, MemoryBudgets};
pub use bus::limited;
pub(crate) use bus::limited_in_order;
pub(crate) use layer::{Door, RATELIMIT, RATELIMIT_POLICY, by_address, by_caller};
pub use limiter::{Decision, Limiter, Standing};
use terms::Terms;

/// So many requests at once, and as many again over so many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 2: a part of them is held back, so that slices cannot add up to more.
    pub requests: u32,
    /// At least 1, at most a day.
    pub seconds: u32,
}

impl FromStr for Rate {
    type Err = String;

    /// Reads `600/60`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("a limit is requests/seconds such as 600/60, not '{text}'");
        let (requests, seconds) = text.split_once('/').ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let rate = Self { requests: number(requests)?, seconds: number(seconds)? };
        match (2..=100_000_000).contains(&rate.requests) && (1..=86_400).contains(&rate.seconds) {
            true => Ok(rate),
            false => Err(format!("a limit has 2 to 100000000 requests in 1 to 86400 seconds, not '{text}'")),
        }
    }
}

/// Routes that share a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Where somebody shows who they are: what can be guessed is guessed here.
    Auth,
    /// Looks.
    Read,
    /// Changes something.
    Write,
}

impl Class {
    const ALL: [Class; 3] = [Class::Auth, Class::Read, Class::Write];

    fn word(self) -> &'static str {
        match self {
            Class::Auth => "auth",
            Class::Read => "read",
            Class::Write => "write",
        }
    }
}

/// Whose budget it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// A client, as the network it has; whoever it says it is.
    Address(IpAddr),
    /// A person who signed in.
    User(PrincipalId),
    /// A program with a key.
    Key(PrincipalId),
    /// Everybody in a tenant together.
    Tenant(TenantId),
}

impl Who {
    const KINDS: [&str; 4] = ["address", "user", "key", "tenant"];

    fn kind(&self) -> usize {
        match self {
            Who::Address(_) => 0,
            Who::User(_) => 1,
            Who::Key(_) => 2,
            Who::Tenant(_) => 3,
        }
    }

    fn name(&self) -> String {
        match self {
            Who::Address(address) => address.to_string(),
            Who::User(principal) | Who::Key(principal) => principal.to_string(),
            Who::Tenant(tenant) => tenant.to_string(),
        }
    }
}

/// The limits of each kind of caller, by class. `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Per address.
    pub address: PerClass,
    /// Per person.
    pub user: PerClass,
    /// Per API key.
    pub key: PerClass,
    /// Per tenant.
    pub tenant: PerClass,
}

/// One kind of caller's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerClass {
    /// [`Class::Auth`].
    pub auth: Option<Rate>,
    /// [`Class::Read`].
    pub read: Option<Rate>,
    /// [`Class::Write`].
    pub write: Option<Rate>,
}

impl Rates {
    fn of(&self, kind: usize, class: Class) -> Option<Rate> {
        let per_class = [self.address, self.user, self.key, self.tenant][kind];
        match class {
            Class::Auth => per_class.auth,
            Class::Read => per_class.read,
            Class::Write => per_class.write,
        }
    }
}

#[cfg(test)]
mod tests;
