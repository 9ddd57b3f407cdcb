//! What Postgres knows and the log does not: how far consumers are, what people decided about parked commits, what became of
//! effects. Copied out under one snapshot, copied in again; the rows of projections are folded from the log instead.

mod forget;
mod load;
mod refill;
mod save;

pub use forget::forget;
pub use load::{Restoring, Trace, target, unfinished};
pub use refill::refill;
pub use save::Source;

/// A table that a backup holds, with the columns that matter. Named one by one: what a later version adds (whose turn it is,
/// say) is about processes that run, and has its default after a restore.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name, with its schema unless that is `airstream`, and its file's name in a backup.
    pub name: &'static str,
    pub(crate) columns: &'static str,
    pub(crate) order: &'static str,
}

/// Every table of a backup, in the order in which they can be filled.
pub const TABLES: [Table; 13] = [
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
    // Without these nobody could read what is sealed in the log. They are wrapped: a backup alone opens nothing.
    Table { name: "identity.subject_keys", columns: "subject, wrapped, created_at, destroyed_at", order: "subject" },
    Table { name: "identity.handles", columns: "kind, digest, person, held, claimed_at", order: "kind, digest" },
    Table {
        name: "identity.credentials",
        columns: "person, password_number, password_hash, totp_secret, totp_enabled, totp_step, recovery_number, changed_at",
        order: "person",
    },
    Table { name: "identity.recovery_codes", columns: "person, digest, used_at", order: "person, digest" },
    // They also tell at the start whether the master key is the one that all of this is wrapped with.
    Table {
        name: "identity.signing_keys",
        columns: "kid, public, wrapped, created_at, signs_from, until",
        order: "kid",
    },
    Table { name: "identity.invites", columns: "invite, tenant, address, code, created_at", order: "invite" },
    Table {
        name: "identity.api_keys",
        columns: "key, tenant, owner, name, scopes, created_at, last_used_at, revoked_at",
        order: "key",
    },
    Table {
        name: "identity.api_key_secrets",
        columns: "digest, key, prefix, created_at, expires_at, overlap_until, replaced_at, version",
        order: "digest",
    },
    Table { name: "identity.erasures", columns: "person, plan, erased, begun_at, finished_at", order: "person" },
    Table {
        name: "mail.outbox",
        columns: "id, kind, about, content, created_at, due_at, tries, reason, settled_at, sent",
        order: "id",
    },
];

/// Tables that no backup holds, and why not. A test asks that every table is in one of the two lists; the tables of projections
/// are in neither, since they are folded from the log.
pub const LEFT_OUT: [(&str, &str); 13] = [
    ("airstream.instances", "who runs now"),
    ("airstream.leases", "who runs what now"),
    ("airstream.snapshots", "a cache of the log"),
    ("airstream.kept", "rows of projections that were switched out; they are not in it either"),
    ("airstream.folds", "rebuilds that run now"),
    ("airstream.budgets", "rate limits of the last minutes"),
    ("airstream.idempotency_keys", "tells callers of their mistakes; that nothing is done twice rests on the log"),
    ("identity.sessions", "a session that was ended after the backup must not come back: everybody signs in again"),
    ("identity.codes", "a code that was used after the backup must not work again: people ask for another"),
    ("identity.devices", "a sign-in that is under way is begun again"),
    ("identity.attempts", "tries of the last minutes"),
    ("identity.exports", "archives of everything about somebody, for a week: they ask for another"),
    ("public._sqlx_migrations", "a restore migrates"),
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
        format!("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT", self.columns, self.qualified(), self.order)
    }

    /// The columns that a backup holds.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        self.columns.split(", ").map(|column| column.trim().to_owned()).collect()
    }

    /// Its name with its schema.
    #[must_use]
    pub fn qualified(&self) -> String {
        if self.name.contains('.') { self.name.to_owned() } else { format!("airstream.{}", self.name) }
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
pub(crate) const GUARDED: &str = "SELECT row_security_active($1)";
pub(crate) const REVOKED: &str = "
    UPDATE identity.api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE key = $1 AND tenant = $2";
pub(crate) const REACHED: &str = "SELECT position FROM airstream.checkpoints WHERE consumer = $1 AND log = $2";
pub(crate) const ADOPT: &str = "UPDATE airstream.checkpoints SET log = $2 WHERE log = $1";
