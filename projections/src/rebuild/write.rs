//! Batches of a fold into the second schema: as one load if that works, else the way the live projection would.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use runtime::consume::HandleError;
use runtime::{Log, Recorded};
use sqlx::{Connection, PgConnection};

use super::failed;
use crate::machinery;
use crate::projector::{CommitFacts, Projector, wanted};

/// From so many commits on, loading is worth its own statements.
const LOAD_FROM: usize = 500;

#[derive(Clone, Copy)]
enum Way {
    Load,
    Apply,
}

/// Writes a batch without what the live projection has parked.
pub(super) async fn write<P: Projector>(
    connection: &mut PgConnection,
    batch: &[Recorded],
    parked: &BTreeSet<i64>,
) -> Result<(), HandleError> {
    let is_parked = |recorded: &Recorded| parked.contains(&machinery::number(recorded.position));
    let commits: Vec<&Recorded> = batch.iter().filter(|recorded| !is_parked(recorded)).collect();
    let facts = wanted::<P>(&commits)?;
    if facts.len() >= LOAD_FROM {
        match attempt::<P>(connection, &facts, Way::Load).await {
            // What a load cannot take, one by one may; if not, it names the commit.
            Err(HandleError::Poison(_)) => {}
            other => return other,
        }
    }
    let mut rest = vec![facts.as_slice()];
    while let Some(slice) = rest.pop().filter(|slice| !slice.is_empty()) {
        match attempt::<P>(connection, slice, Way::Apply).await {
            Err(HandleError::Poison(_)) if slice.len() > 1 => {
                let (left, right) = slice.split_at(slice.len() / 2);
                rest.push(right);
                rest.push(left);
            }
            Err(HandleError::Poison(reason)) => {
                let reason = format!("commit {} of {}: {reason}", slice[0].position, slice[0].stream);
                return Err(HandleError::Poison(reason));
            }
            other => other?,
        }
    }
    Ok(())
}

/// Writes commits that were parked and have been handled meanwhile.
pub(super) async fn write_released<P: Projector>(
    connection: &mut PgConnection,
    log: &Arc<dyn Log>,
    positions: &[i64],
) -> Result<(), HandleError> {
    for position in positions {
        let position = machinery::position(*position);
        let read = log.at(position).await.map_err(|error| HandleError::Transient(error.to_string()))?;
        let missing = || HandleError::Transient(format!("the log has no commit at {position}"));
        write::<P>(connection, &[read.ok_or_else(missing)?], &BTreeSet::new()).await?;
    }
    Ok(())
}

async fn attempt<P: Projector>(
    connection: &mut PgConnection,
    facts: &[CommitFacts<'_>],
    way: Way,
) -> Result<(), HandleError> {
    let mut transaction = connection.begin().await.map_err(failed("begin"))?;
    let writing = async {
        match way {
            Way::Load => P::load(facts, &mut transaction).await,
            Way::Apply => P::apply(facts, &mut transaction).await,
        }
    };
    match AssertUnwindSafe(writing).catch_unwind().await {
        Ok(written) => written?,
        Err(_) => return Err(HandleError::Poison("the projector panicked".to_owned())),
    }
    transaction.commit().await.map_err(failed("commit"))
}
