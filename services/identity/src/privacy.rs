//! What belongs to people: to see what happened to their account, to take along everything that is stored about them, and to be
//! forgotten.

mod archive;
mod erase;
mod export;
mod history;
mod opening;
mod seen;
mod sentence;

use std::sync::Arc;

use projections::identity::{Erasures, Exports};
use runtime::Log;

use crate::accounts::Accounts;

pub use erase::{Erasing, Farewell};
pub use export::ExportView;
pub use history::Happened;
pub use seen::Seen;

/// Cheap to clone.
#[derive(Clone)]
pub struct Privacy(Arc<Inner>);

/// What [`Privacy`] shares.
pub struct Inner {
    accounts: Accounts,
    log: Arc<dyn Log>,
    exports: Exports,
    erasures: Erasures,
}

impl std::ops::Deref for Privacy {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Privacy {
    /// Of these accounts, whose history this log has.
    #[must_use]
    pub fn new(accounts: Accounts, log: Arc<dyn Log>) -> Self {
        let (exports, erasures) = (Exports::new(&accounts.database), Erasures::new(&accounts.database));
        Self(Arc::new(Inner { accounts, log, exports, erasures }))
    }
}
