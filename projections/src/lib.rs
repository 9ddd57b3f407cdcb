//! The SQL room: everything that speaks to Postgres. Projectors write rows, queries read them, and the machinery keeps
//! checkpoints, parked commits and recorded effects.
//!
//! Adding a projection: a file here, a numbered file in `migrations/`, and one line where the binary is composed.
//!
//! **Invariant**: a projector sees only events. It has no clock and asks nobody, so that replaying gives the same rows.

mod at_least;
pub mod audit;
pub mod backup;
pub mod budgets;
pub mod commits;
mod copy;
mod database;
mod effects;
mod examine;
mod failure;
pub mod idempotency;
pub mod identity;
pub mod inbox;
pub mod leases;
pub mod lot;
mod machinery;
pub mod mail;
mod migrate;
mod projector;
mod rebuild;
mod row;
pub mod runs;
mod scoped;
mod snapshots;
pub mod statements;
pub mod status;
pub mod tenants;
pub mod workflows;

pub use at_least::{NotReached, fresh, wait_until};
pub use database::Database;
pub use effects::PgEffects;
pub use examine::examine;
pub use failure::Failure;
pub use leases::PgLeases;
pub use migrate::{Migrated, MigrationState, migrate, migration_state, migrations};
pub use projector::{CommitFacts, ProjectError, Projection, Projector, lease, run, schema};
pub use rebuild::{Difference, Fold, Phase, Progress, RolledBack, rebuild, roll_back, verify};
pub use scoped::Scoped;
pub use snapshots::PgSnapshots;
