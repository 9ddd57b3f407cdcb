//! Rows as types, by the names of their columns.

/// Says how a type is read from a row: each field from the column of its name. (sqlx has a derive for it, behind a feature
/// that compiles half of sqlx a second time.)
macro_rules! from_row {
    ($type:ty { $($field:ident),+ $(,)? }) => {
        impl<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> for $type {
            fn from_row(row: &'r sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
                use sqlx::Row as _;
                Ok(Self { $($field: row.try_get(stringify!($field))?),+ })
            }
        }
    };
}

pub(crate) use from_row;
