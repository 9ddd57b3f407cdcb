//! What every HTTP route shares: who calls, problem documents, bodies, pages, idempotency keys.

mod answer;
mod caller;
pub mod documents;
mod extract;
mod fault;
mod once;
mod origin;
mod quotas;
mod scope;

pub use answer::answer;
pub use caller::{ANYBODY, Access, Caller, Holder, Level, ME, OPERATE, Signed, SignedIn, covers};
pub use extract::{AtLeast, Chain, Fields, PageQuery, Payload, Query, Segment, Segments, name};
pub use fault::Fault;
pub use once::{IdempotencyKey, Once, asker};
pub use origin::Origin;
pub use quotas::{Quotas, Unmetered};
pub use scope::{RESOURCES, level_of};

/// One page of a list.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Hand it back as `cursor` for the next page; null at the end.
    #[schema(example = json!(null))]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page out of `limit + 1` rows: the extra one says whether there is more.
    pub fn of(mut rows: Vec<T>, limit: usize, cursor: impl Fn(&T) -> String) -> Self {
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = if more { rows.last().map(cursor) } else { None };
        Self { items: rows, next_cursor }
    }
}
