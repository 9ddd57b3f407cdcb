//! What Postgres knows and the log does not: how far consumers are, what people decided about parked commits, what became of
//! effects. Copied out under one snapshot, copied in again; the rows of projections are folded from the log instead.

mod load;
mod refill;
mod save;

pub use load::{Restoring, Trace, target, unfinished};
pub use refill::refill;
pub use save::Source;

/// A table that a backup holds, with the columns that matter. Named one by one: what a later version adds (whose turn it is,
/// say) is about processes that run, and has its default after a restore.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name in the schema `airstream`, and its file's name in a backup.
    pub name: &'static str,
    pub(crate) columns: &'static str,
    pub(crate) order: &'static str,
}

/// Every table of a backup.
pub const TABLES: [Table; 3] = [
    Table { name: "checkpoints", columns: "consumer, position, log, updated_at", order: "consumer" },
    Table {
        name: "parked",
        columns: "consumer, position, subject, tenant_id, state, reason, tries, released, parked_at",
        order: "consumer, position",
    },
    Table {
        name: "effects",
        columns: "tenant_id, consumer, category, stream_id, name, event_id, correlation, due, request, attempts, \
                  state, note, revive, recorded_at, settled_at",
        order: "tenant_id, consumer, category, stream_id, name",
    },
];

impl Table {
    /// The table of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Table> {
        TABLES.iter().find(|table| table.name == name)
    }

    /// Reads where a line of the tables `checkpoints` and `parked` stands: consumer and position.
    #[must_use]
    pub fn place(line: &str) -> Option<(&str, u64)> {
        let mut columns = line.split('\t');
        Some((columns.next()?, columns.next()?.parse().ok()?))
    }

    pub(crate) fn copy_out(&self) -> String {
        format!("COPY (SELECT {} FROM airstream.{} ORDER BY {}) TO STDOUT", self.columns, self.name, self.order)
    }

    pub(crate) fn copy_in(&self) -> String {
        format!("COPY airstream.{} ({}) FROM STDIN", self.name, self.columns)
    }
}

pub(crate) const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
pub(crate) const FARTHEST: &str = "SELECT max(position) FROM airstream.checkpoints WHERE log = $1";
pub(crate) const UNFINISHED: &str = "SELECT to_regclass('airstream.unfinished_restore') IS NOT NULL";
// Processes of ours name themselves; a restore by another name.
pub(crate) const OTHERS: &str = "
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'airstream'";
// A consumer that has begun and not moved is no trace of work: every start makes those.
pub(crate) const WORKED: &str = "
    SELECT (SELECT count(*) FROM airstream.checkpoints WHERE position > 0),
           (SELECT count(*) FROM airstream.parked), (SELECT count(*) FROM airstream.effects)";
// Two restores at once would each take the other's work for a leftover.
pub(crate) const ALONE: &str = "SELECT pg_try_advisory_lock(hashtextextended('airstream restore', 0))";
pub(crate) const REACHED: &str = "SELECT position FROM airstream.checkpoints WHERE consumer = $1 AND log = $2";
pub(crate) const ADOPT: &str = "UPDATE airstream.checkpoints SET log = $2 WHERE log = $1";
