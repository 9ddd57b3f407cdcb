//! `runs`: runs of workflows and their steps.
//!
//! A batch loads the rows it touches, folds its events into them, and writes each row back once.

mod columns;
mod fold;
mod read;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use events::run::Event;
use kernel::{Envelope, FactError, TenantId};
use sqlx::PgConnection;

use crate::machinery;
use crate::projector::{CommitFacts, ProjectError, Projector};

use fold::Rows;
pub(crate) use read::{GET, LIST, STEPS};
pub use read::{RunRow, StepRow, get, list, steps};
use rows::Written;
pub(crate) use rows::{LOAD_RUNS, LOAD_STEPS, STORE_RUNS, STORE_STEPS};

/// The projector.
pub struct Runs;

#[async_trait]
impl Projector for Runs {
    const NAME: &'static str = "runs";
    const VERSION: u32 = 1;
    const CATEGORIES: &'static [&'static str] = &[events::run::CATEGORY];
    const TABLES: &'static [&'static str] = &["runs", "steps"];

    async fn apply(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        let touched = touched(commits, tables).await?;
        store(touched.iter(), tables).await?;
        Ok(())
    }

    async fn load(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        let begun = begun(commits);
        let touched = touched(commits, tables).await?;
        let (new, known): (Vec<_>, Vec<_>) = touched.iter().partition(|(key, _)| begun.contains(*key));
        copy_out(new.into_iter(), tables).await?;
        store(known.into_iter(), tables).await?;
        Ok(())
    }
}

/// A tenant and a run: the key of a row.
type Key<'a> = (&'a str, &'a str);

fn key<'a>(facts: &CommitFacts<'a>) -> Key<'a> {
    (facts.stream.tenant.as_str(), facts.stream.id.as_str())
}

/// Runs whose first commit is in the batch. They begin anew: whatever rows there may be, from an earlier delivery, have
/// nothing to say.
fn begun<'a>(commits: &[CommitFacts<'a>]) -> BTreeSet<Key<'a>> {
    commits.iter().filter(|facts| facts.commit.first().streamversion == 1).map(key).collect()
}

/// The rows that a batch touches, as they are after it.
async fn touched<'a>(
    commits: &[CommitFacts<'a>],
    tables: &mut PgConnection,
) -> Result<BTreeMap<Key<'a>, Rows>, ProjectError> {
    let begun = begun(commits);
    let known: BTreeSet<Key<'_>> = commits.iter().map(key).filter(|key| !begun.contains(key)).collect();
    // Decoded while Postgres looks for the rows.
    let (stored, decoded) = tokio::join!(stored(&known, tables), async { decoded(commits) });
    let (mut touched, decoded) = (stored?, decoded?);
    for (facts, events) in commits.iter().zip(decoded) {
        let rows = touched.entry(key(facts)).or_default();
        for (event, envelope) in events.into_iter().zip(&facts.commit.events) {
            rows.event(event, envelope, machinery::number(facts.position));
        }
    }
    Ok(touched)
}

fn decoded(commits: &[CommitFacts<'_>]) -> Result<Vec<Vec<Event>>, FactError> {
    commits.iter().map(|facts| facts.commit.events.iter().map(Envelope::decode).collect()).collect()
}

/// The rows of runs as they stand in the tables.
async fn stored<'a>(
    known: &BTreeSet<Key<'a>>,
    tables: &mut PgConnection,
) -> Result<BTreeMap<Key<'a>, Rows>, sqlx::Error> {
    if known.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (tenants, ids): (Vec<&str>, Vec<&str>) = known.iter().copied().unzip();
    let mut found: Vec<Rows> = known.iter().map(|_| Rows::default()).collect();
    let at = |number: i64| usize::try_from(number - 1).unwrap_or(usize::MAX);
    for (number, row) in rows::load_runs(&tenants, &ids, tables).await? {
        if let Some(rows) = found.get_mut(at(number)) {
            rows.run = Some(row);
        }
    }
    for (number, row) in rows::load_steps(&tenants, &ids, tables).await? {
        if let Some(rows) = found.get_mut(at(number)) {
            rows.steps.push(row);
        }
    }
    Ok(known.iter().copied().zip(found).collect())
}

/// Rows that have changed, each with what it does not hold of its key itself.
fn changed<'a>(
    touched: impl Iterator<Item = (&'a Key<'a>, &'a Rows)>,
) -> (Vec<Written<'a, rows::Run>>, Vec<Written<'a, rows::Step>>) {
    let (mut runs, mut steps) = (Vec::new(), Vec::new());
    for ((tenant, run), rows) in touched {
        runs.extend(rows.run.as_ref().map(|row| (*tenant, *run, row)));
        steps.extend(rows.steps.iter().filter(|step| step.touched).map(|row| (*tenant, *run, row)));
    }
    (runs, steps)
}

async fn store<'a>(
    touched: impl Iterator<Item = (&'a Key<'a>, &'a Rows)>,
    tables: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let (runs, steps) = changed(touched);
    if !runs.is_empty() {
        rows::store_runs(&runs, tables).await?;
    }
    if !steps.is_empty() {
        rows::store_steps(&steps, tables).await?;
    }
    Ok(())
}

/// The same for runs that the tables do not know.
async fn copy_out<'a>(
    touched: impl Iterator<Item = (&'a Key<'a>, &'a Rows)>,
    tables: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    let (runs, steps) = changed(touched);
    rows::copy_runs(&runs, tables).await?;
    rows::copy_steps(&steps, tables).await
}

/// Which of a tenant's runs to list.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// Only of this workflow.
    pub workflow: Option<&'a str>,
    /// Only in this status.
    pub status: Option<&'a str>,
    /// Only those that started before this position.
    pub before: Option<kernel::Position>,
    /// At most so many.
    pub limit: i64,
}
