//! Columns of runs and steps in the order in which every statement names them.

use kernel::Timestamp;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{Decode, FromRow, Postgres, Row, Type};

/// From `workflow_id` to `position`.
pub(super) type RunColumns = (
    String,
    i32,
    String,
    Option<Value>,
    Option<Value>,
    Option<Value>,
    Option<String>,
    String,
    Timestamp,
    Option<Timestamp>,
    i64,
    i64,
    i64,
);

/// From `step_id` to `finished_at`.
pub(super) type StepColumns = (
    String,
    i32,
    String,
    String,
    String,
    i32,
    Option<String>,
    Option<Value>,
    Option<Value>,
    Option<Timestamp>,
    Option<Timestamp>,
    Option<Timestamp>,
    Option<Timestamp>,
    Option<Timestamp>,
);

/// Columns, and what a statement selects behind them.
pub(super) struct Behind<T, K>(pub(super) T, pub(super) K);

impl<'r, T: FromRow<'r, PgRow>, K: Decode<'r, Postgres> + Type<Postgres>> FromRow<'r, PgRow> for Behind<T, K> {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self(T::from_row(row)?, row.try_get(row.len() - 1)?))
    }
}
