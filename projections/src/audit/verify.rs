//! Whether a tenant's audit is whole: each row against the hash before it, and all of them against the log, which tells what is
//! missing at the end, too. Holds nobody up.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use kernel::{Category, Position, StreamName, TenantId};
use runtime::consume::HandleError;
use runtime::{Filter, Freshness, Log, LogError, Recorded};
use sqlx::{Connection, PgConnection};

use super::entry::{self, Entry, Hash, Turn, link};
use super::read::hex;
use super::{PEOPLE, Row, of_row};
use crate::projector::CommitFacts;
use crate::{Database, machinery};

pub(crate) const STANDS: &str = "SELECT position FROM airstream.checkpoints WHERE consumer = 'audit_v1' AND log = $1";
pub(crate) const PARKED: &str = "SELECT position FROM airstream.parked WHERE consumer = 'audit_v1'";
pub(crate) const ROWS: &str = "
    SELECT tenant_id, position, number, at, actor, action, category, subject, correlation, data, hash
    FROM audit_v1.entries WHERE tenant_id = $1 ORDER BY position, number";

/// So many findings tell enough.
const MOST_FINDINGS: usize = 100;

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// Its hash does not follow from what it says and the hash before it.
    Broken,
    /// It does not say what the log says.
    Changed,
    /// The log leads to it, and it is not there.
    Missing,
    /// The log does not lead to it.
    Invented,
}

/// A row that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Finding {
    /// Where its commit stands.
    #[schema(value_type = String, example = "p1-2a")]
    pub position: Position,
    /// Which event of the commit, from 0.
    pub number: i32,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What a verification came to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Verified {
    /// Whether nothing is wrong.
    pub intact: bool,
    /// Rows that the log leads to.
    #[schema(example = 17)]
    pub entries: u64,
    /// Where the last one stands.
    #[schema(value_type = Option<String>, example = "p1-2a")]
    pub position: Option<Position>,
    /// The hash of the last one, as it follows from the log: whoever keeps it can tell later that nothing before it was changed.
    #[schema(example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub head: String,
    /// What is wrong, in order; the first hundred.
    pub findings: Vec<Finding>,
}

/// Compares a tenant's audit with itself and with the log.
///
/// # Errors
/// When the log or Postgres cannot be read.
pub async fn verify(database: &Database, log: &Arc<dyn Log>, tenant: &TenantId) -> Result<Verified, HandleError> {
    let failed = |error| machinery::our_error("read the audit", error);
    let mut connection = database.dedicated().await.map_err(failed)?;
    let mut transaction =
        connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
    let verified = compare(&mut transaction, log, tenant).await;
    transaction.commit().await.map_err(failed)?;
    machinery::release(connection).await;
    verified
}

async fn compare(
    connection: &mut PgConnection,
    log: &Arc<dyn Log>,
    tenant: &TenantId,
) -> Result<Verified, HandleError> {
    let failed = |error| machinery::our_error("read the audit", error);
    let identity = log.identity().await.map_err(unreadable)?;
    let stands: Option<i64> =
        sqlx::query_scalar(STANDS).bind(&identity).fetch_optional(&mut *connection).await.map_err(failed)?;
    let parked: Vec<i64> = sqlx::query_scalar(PARKED).fetch_all(&mut *connection).await.map_err(failed)?;
    let upto = Upto { position: machinery::position(stands.unwrap_or_default()), parked: parked.into_iter().collect() };
    let mut expected = upto.expected(log, tenant).await?;
    let entries = expected.len() as u64;
    let last = expected.keys().next_back().map(|(position, _)| machinery::position(*position));
    let head = expected.values().fold(entry::first(tenant.as_str()), |before, digest| link(&before, digest));

    let mut findings = Vec::new();
    let mut note = |(position, number), wrong| {
        findings.push(Finding { position: machinery::position(position), number, wrong });
    };
    let mut before = entry::first(tenant.as_str()).to_vec();
    let mut rows = sqlx::query_as::<_, Row>(ROWS).bind(tenant.as_str()).fetch(connection);
    while let Some(row) = rows.next().await {
        let (entry, hash) = of_row(row.map_err(failed)?);
        let (place, digest) = ((entry.position, entry.number), entry.digest());
        if link(&before, &digest).as_slice() != hash {
            note(place, Wrong::Broken);
        }
        match expected.remove(&place) {
            None => note(place, Wrong::Invented),
            Some(said) if said != digest => note(place, Wrong::Changed),
            Some(_) => {}
        }
        before = hash;
    }
    drop(rows);
    expected.into_keys().for_each(|place| note(place, Wrong::Missing));
    findings.sort_by_key(|finding| (finding.position, finding.number));
    findings.truncate(MOST_FINDINGS);
    Ok(Verified { intact: findings.is_empty(), position: last, entries, head: hex(&head), findings })
}

fn unreadable(error: LogError) -> HandleError {
    HandleError::Transient(error.to_string())
}

/// What is in the rows, and so has to be read.
struct Upto {
    position: Position,
    parked: HashSet<i64>,
}

/// Digests by place: small, and in the order of the chain.
type Digests = BTreeMap<(i64, i32), Hash>;

impl Upto {
    async fn expected(&self, log: &Arc<dyn Log>, tenant: &TenantId) -> Result<Digests, HandleError> {
        let mut digests = Digests::new();
        let mut keep = |entry: &Entry| {
            digests.insert((entry.position, entry.number), entry.digest());
        };
        // Of each who ever was a member: from where to where.
        let mut spans: BTreeMap<String, Vec<(i64, Option<i64>)>> = BTreeMap::new();
        for category in entry::CATEGORIES {
            let category = Category::new(category).ok();
            let filter = Filter { tenant: Some(tenant.clone()), category, id: None };
            let mut commits = self.commits(log, &filter).await?;
            while let Some(recorded) = commits.next().await {
                let recorded = recorded.map_err(unreadable)?;
                let Some(facts) = self.facts(&recorded)? else { continue };
                Entry::all(&facts).map_err(poison)?.iter().for_each(&mut keep);
                let position = machinery::number(facts.position);
                for envelope in &facts.commit.events {
                    match entry::turn(envelope).map_err(poison)? {
                        Some(Turn::Joined(person)) => {
                            let spans = spans.entry(person).or_default();
                            if spans.last().is_none_or(|(_, until)| until.is_some()) {
                                spans.push((position, None));
                            }
                        }
                        Some(Turn::Left(person)) => {
                            if let Some((_, until)) = spans.get_mut(&person).and_then(|spans| spans.last_mut()) {
                                until.get_or_insert(position);
                            }
                        }
                        None => {}
                    }
                }
            }
        }
        if tenant.as_str() == PEOPLE {
            return Ok(digests);
        }
        for (person, spans) in spans {
            // Who is called otherwise is no person that has a stream.
            let Ok(stream) = StreamName::new(PEOPLE, events::person::CATEGORY, &person) else { continue };
            let mut after = Position::START;
            loop {
                let page = log.read_stream(&stream, after, Freshness::Any).await.map_err(unreadable)?;
                let Some(last) = page.commits.last().map(|recorded| recorded.position) else { break };
                for recorded in &page.commits {
                    let Some(facts) = self.facts(recorded)? else { continue };
                    let at = machinery::number(facts.position);
                    if spans.iter().any(|(since, until)| *since < at && until.is_none_or(|until| at < until)) {
                        let all = Entry::all(&facts).map_err(poison)?;
                        all.iter().filter_map(|entry| entry.for_member(tenant.as_str())).for_each(|entry| {
                            digests.insert((entry.position, entry.number), entry.digest());
                        });
                    }
                }
                after = last;
                if !page.more {
                    break;
                }
            }
        }
        Ok(digests)
    }

    /// What a filter admits, up to where the rows stand.
    async fn commits(
        &self,
        log: &Arc<dyn Log>,
        filter: &Filter,
    ) -> Result<futures::stream::BoxStream<'static, Result<Recorded, LogError>>, HandleError> {
        let reader = log.read(Position::START, filter).await.map_err(unreadable)?;
        // The first ones say nothing of the others: only the number that waits tells when to stop.
        let (waiting, upto) = (usize::try_from(reader.waiting).unwrap_or(usize::MAX), self.position);
        let within = move |read: &Result<Recorded, LogError>| {
            let beyond = read.as_ref().is_ok_and(|recorded| recorded.position > upto);
            futures::future::ready(!beyond)
        };
        Ok(reader.commits.take(waiting).take_while(within).boxed())
    }

    /// A commit as the projector has seen it; `None`: it has not, or it is nobody's history.
    fn facts<'a>(&self, recorded: &'a Recorded) -> Result<Option<CommitFacts<'a>>, HandleError> {
        let place = machinery::number(recorded.position);
        if recorded.position > self.position || self.parked.contains(&place) {
            return Ok(None);
        }
        let found = recorded.history().map_err(HandleError::Poison)?;
        Ok(found.map(|(stream, commit)| CommitFacts { position: recorded.position, stream, commit }))
    }
}

fn poison(error: kernel::FactError) -> HandleError {
    HandleError::Poison(error.to_string())
}
