//! Failures of Postgres: what was attempted, and whether trying again as it is may help.

use runtime::StoreError;
use runtime::consume::HandleError;

/// A query that failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {attempt}")]
pub struct Failure {
    /// What was being attempted.
    pub attempt: &'static str,
    /// What Postgres or the network said.
    #[source]
    pub source: sqlx::Error,
}

impl Failure {
    /// For `map_err`.
    pub fn attempting(attempt: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self { attempt, source }
    }

    /// Whether the same query may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        is_transient(&self.source)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        let said = format!("{failure}: {}", failure.source);
        if failure.is_transient() { Self::Transient(said) } else { Self::Poison(said) }
    }
}

impl From<Failure> for HandleError {
    fn from(failure: Failure) -> Self {
        StoreError::from(failure).into()
    }
}

impl From<Failure> for kernel::Problem {
    fn from(failure: Failure) -> Self {
        tracing::warn!(error = %failure, source = %failure.source, "Postgres");
        if is_passing(&failure.source) {
            Self::unavailable("The read models cannot be reached right now.", 1_000)
        } else {
            Self::new(500, "defect", "A query of ours failed; it has been logged.")
        }
    }
}

/// Only what is about the data itself will fail for ever: values that do not fit (class 22), broken constraints (23),
/// limits of a statement (54), and data that cannot be encoded. A missing table or permission is our own mistake, and must
/// not park the whole log.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            !error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
        }
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => false,
        _ => true,
    }
}

/// Connections, locks, shutdowns and full disks pass. Classes: 08 connection, 25 transaction state after a lost one,
/// 40 serialization and deadlock, 53 resources, 55 lock not available, 57 operator intervention, 58 system error.
fn is_passing(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        Some(error) => error
            .code()
            .is_some_and(|code| ["08", "25", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))),
        None => is_transient(error),
    }
}

/// Text that Postgres can store: it has no U+0000.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
