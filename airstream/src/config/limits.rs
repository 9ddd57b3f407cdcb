//! `[limits]`: how often somebody may ask.

use gateway::limits::{PerClass, Rate, Rates};
use serde::{Deserialize, Serialize};

/// Limits per kind of caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    pub(crate) enabled: bool,
    pub(crate) address: Each,
    pub(crate) user: Each,
    pub(crate) key: Each,
    pub(crate) tenant: Each,
}

/// Limits per class of routes: `requests/seconds`, or empty for none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Each {
    pub(crate) auth: String,
    pub(crate) read: String,
    pub(crate) write: String,
}

impl Each {
    fn of(auth: &str, read: &str, write: &str) -> Self {
        Self { auth: auth.to_owned(), read: read.to_owned(), write: write.to_owned() }
    }

    fn rates(&self) -> PerClass {
        // What is no limit has been refused with the other mistakes, or is empty.
        let rate = |text: &str| text.parse::<Rate>().ok();
        PerClass { auth: rate(&self.auth), read: rate(&self.read), write: rate(&self.write) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            enabled: true,
            address: Each::of("600/60", "60000/60", "30000/60"),
            user: Each::of("300/60", "60000/60", "30000/60"),
            key: Each::of("300/60", "60000/60", "30000/60"),
            tenant: Each::of("", "120000/60", "60000/60"),
        }
    }
}

impl Limits {
    /// The limits, if there are any.
    pub(crate) fn rates(&self) -> Option<Rates> {
        let (address, user) = (self.address.rates(), self.user.rates());
        self.enabled.then(|| Rates { address, user, key: self.key.rates(), tenant: self.tenant.rates() })
    }

    /// A sentence per value that is no limit.
    pub(super) fn mistakes(&self) -> Vec<String> {
        let kinds = [("address", &self.address), ("user", &self.user), ("key", &self.key), ("tenant", &self.tenant)];
        let each = kinds.iter().flat_map(|(kind, each)| {
            [("auth", &each.auth), ("read", &each.read), ("write", &each.write)]
                .map(|(class, text)| (kind, class, text))
        });
        let wrong = each.filter(|(_, _, text)| !text.is_empty());
        wrong
            .filter_map(|(kind, class, text)| {
                text.parse::<Rate>().err().map(|error| format!("limits.{kind}.{class}: {error}"))
            })
            .collect()
    }
}
