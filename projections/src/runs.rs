//! `runs`: runs of workflows and their steps.
//!
//! A batch loads the rows it touches, folds its events into them, and writes each row back once.

mod read;
mod rows;

use std::collections::BTreeSet;

use async_trait::async_trait;
use kernel::TenantId;
use sqlx::PgConnection;

use crate::machinery;
use crate::projector::{CommitFacts, ProjectError, Projector};

pub(crate) use read::{GET, LIST, STEPS};
pub use read::{RunRow, StepRow, get, list, steps};
use rows::Fold;
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
        let mut fold = Fold::load(commits, tables).await?;
        fold_all(&mut fold, commits)?;
        fold.store(tables).await?;
        Ok(())
    }

    async fn load(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        // What begins in this batch has no rows yet: no need to look for them, and no need to merge them.
        let begins = |facts: &CommitFacts<'_>| facts.commit.first().streamversion == 1;
        let fresh: BTreeSet<Key> = commits.iter().filter(|facts| begins(facts)).map(key).collect();
        let known: Vec<&CommitFacts<'_>> = commits.iter().filter(|facts| !fresh.contains(&key(facts))).collect();
        let mut fold = Fold::load(known, tables).await?;
        fold_all(&mut fold, commits)?;
        fold.copy_out(&fresh, tables).await?;
        fold.store(tables).await?;
        Ok(())
    }
}

fn key(facts: &CommitFacts<'_>) -> Key {
    (facts.stream.tenant.to_string(), facts.stream.id.to_string())
}

fn fold_all(fold: &mut Fold, commits: &[CommitFacts<'_>]) -> Result<(), ProjectError> {
    for facts in commits {
        let key = key(facts);
        for envelope in &facts.commit.events {
            fold.event(&key, envelope.decode()?, envelope, machinery::number(facts.position));
        }
    }
    Ok(())
}

/// A tenant and a run: the key of a row.
pub(crate) type Key = (String, String);

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
