//! `audit`: who did what, when. One append-only chain per tenant: each row's hash covers the row and the hash before it, so that
//! a row that somebody changed or removed by hand shows, here ([`verify`]) and to whoever has kept a hash.
//!
//! A chain is a function of the commits, not of the order in which they are handled: a commit that was parked and is released
//! later goes where it belongs, and what follows is chained anew.

mod entry;
mod read;
mod verify;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use kernel::FactError;
use serde_json::Value;
use sqlx::PgConnection;

use crate::machinery;
use crate::projector::{CommitFacts, ProjectError, Projector};

pub use entry::{Entry, Hash, PEOPLE};
pub use read::{AuditRow, Wanted, list, of_person};
pub use verify::{Finding, Verified, Wrong, verify};

/// Every statement that is asked from outside the projector's schema.
pub(crate) const STATEMENTS: &[&str] = &[read::LIST, read::OF_PERSON, verify::ROWS, verify::STANDS, verify::PARKED];

/// The projector.
pub struct Audit;

pub(crate) const HEADS: &str = "
    SELECT wanted.tenant_id, head.position, head.hash FROM UNNEST($1::text[]) AS wanted (tenant_id)
    CROSS JOIN LATERAL (
        SELECT position, hash FROM entries WHERE entries.tenant_id = wanted.tenant_id
        ORDER BY position DESC, number DESC LIMIT 1) AS head";
// Whoever accepts a second invitation is a member already.
pub(crate) const JOIN: &str = "
    INSERT INTO spans (tenant_id, person, since) SELECT $1, $2, $3
    WHERE NOT EXISTS (SELECT FROM spans WHERE tenant_id = $1 AND person = $2 AND (until IS NULL OR until > $3))
    ON CONFLICT DO NOTHING";
pub(crate) const LEAVE: &str = "
    UPDATE spans SET until = least(until, $3) WHERE tenant_id = $1 AND person = $2 AND since = (
        SELECT max(since) FROM spans WHERE tenant_id = $1 AND person = $2 AND since < $3)";
pub(crate) const CONCERNED: &str = "
    SELECT wanted.number, spans.tenant_id
    FROM UNNEST($1::text[], $2::bigint[]) WITH ORDINALITY AS wanted (person, position, number)
    JOIN spans ON spans.person = wanted.person AND spans.since < wanted.position
        AND (spans.until IS NULL OR spans.until > wanted.position)";
pub(crate) const INSERT: &str = "
    INSERT INTO entries (tenant_id, position, number, at, actor, action, category, subject, correlation, data, hash)
    SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::integer[], $4::timestamptz[], $5::text[], $6::text[], $7::text[],
                         $8::text[], $9::text[], $10::jsonb[], $11::bytea[])
    ON CONFLICT (tenant_id, position, number) DO NOTHING";
pub(crate) const ROWS: &str = "
    SELECT tenant_id, position, number, at, actor, action, category, subject, correlation, data, hash
    FROM entries WHERE tenant_id = $1 AND (position, number) > ($2, $3) ORDER BY position, number LIMIT 1000";
pub(crate) const CHAIN: &str = "
    UPDATE entries SET hash = chained.hash
    FROM UNNEST($2::bigint[], $3::integer[], $4::bytea[]) AS chained (position, number, hash)
    WHERE entries.tenant_id = $1 AND entries.position = chained.position AND entries.number = chained.number";
pub(crate) const WITHDRAW: &str = "DELETE FROM entries WHERE tenant_id = $1 AND category = 'person'";
pub(crate) const BELONGED: &str = "
    SELECT entries.tenant_id, position, number, at, actor, action, category, subject, correlation, data, hash
    FROM entries JOIN spans ON spans.person = entries.subject AND spans.since < position
        AND (spans.until IS NULL OR spans.until > position)
    WHERE entries.tenant_id = $2 AND category = 'person' AND spans.tenant_id = $1";

#[async_trait]
impl Projector for Audit {
    const NAME: &'static str = "audit";
    const VERSION: u32 = 1;
    const CATEGORIES: &'static [&'static str] = entry::CATEGORIES;
    const TABLES: &'static [&'static str] = &["entries", "spans"];

    async fn apply(commits: &[CommitFacts<'_>], tables: &mut PgConnection) -> Result<(), ProjectError> {
        let own: Vec<Vec<Entry>> = commits.iter().map(Entry::all).collect::<Result<_, FactError>>()?;
        let own: Vec<Entry> = own.into_iter().flatten().collect();
        let turned = turn_members(commits, tables).await?;
        let mut audits: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for entry in concerned(&own, tables).await?.into_iter().chain(own) {
            audits.entry(entry.tenant.clone()).or_default().push(entry);
        }
        let mut heads = heads(audits.keys().map(String::as_str).chain([PEOPLE]), tables).await?;
        // Members whose joining was released late have done things meanwhile, as others who left late have not.
        let people = heads.get(PEOPLE).map_or(0, |(position, _)| *position);
        let late: BTreeSet<String> =
            turned.into_iter().filter(|(_, position)| *position < people).map(|(tenant, _)| tenant).collect();
        for (tenant, mut entries) in audits {
            entries.sort_by_key(|entry| (entry.position, entry.number));
            let (head, before) = heads.remove(&tenant).unwrap_or_else(|| (0, entry::first(&tenant).to_vec()));
            let appends = entries.first().is_some_and(|entry| entry.position > head);
            insert(&entries, &before, tables).await?;
            if late.contains(&tenant) {
                mend(&tenant, tables).await?;
            }
            if !appends || late.contains(&tenant) {
                chain(&tenant, tables).await?;
            }
        }
        Ok(())
    }
}

/// Notes who became or ceased to be a member: of which tenants, and where.
async fn turn_members(
    commits: &[CommitFacts<'_>],
    tables: &mut PgConnection,
) -> Result<Vec<(String, i64)>, ProjectError> {
    let mut turned = Vec::new();
    for facts in commits {
        let (tenant, position) = (facts.stream.tenant.as_str(), machinery::number(facts.position));
        for envelope in &facts.commit.events {
            let (statement, person) = match entry::turn(envelope)? {
                Some(entry::Turn::Joined(person)) => (JOIN, person),
                Some(entry::Turn::Left(person)) => (LEAVE, person),
                None => continue,
            };
            sqlx::query(statement).bind(tenant).bind(person).bind(position).execute(&mut *tables).await?;
            turned.push((tenant.to_owned(), position));
        }
    }
    Ok(turned)
}

/// What of these concerns tenants to which its people belonged at that time.
async fn concerned(own: &[Entry], tables: &mut PgConnection) -> Result<Vec<Entry>, ProjectError> {
    let people: Vec<&Entry> = own.iter().filter(|entry| entry.for_member("").is_some()).collect();
    if people.is_empty() {
        return Ok(Vec::new());
    }
    let found: Vec<(i64, String)> = sqlx::query_as(CONCERNED)
        .bind(people.iter().map(|entry| entry.subject.as_str()).collect::<Vec<_>>())
        .bind(people.iter().map(|entry| entry.position).collect::<Vec<_>>())
        .fetch_all(tables)
        .await?;
    let nth = |number: i64| people.get(usize::try_from(number - 1).ok()?).copied();
    Ok(found.into_iter().filter_map(|(number, tenant)| nth(number)?.for_member(&tenant)).collect())
}

type Head = (i64, Vec<u8>);

async fn heads(
    tenants: impl Iterator<Item = &str>,
    tables: &mut PgConnection,
) -> Result<BTreeMap<String, Head>, ProjectError> {
    let tenants: Vec<&str> = tenants.collect();
    let rows: Vec<(String, i64, Vec<u8>)> = sqlx::query_as(HEADS).bind(tenants).fetch_all(tables).await?;
    Ok(rows.into_iter().map(|(tenant, position, hash)| (tenant, (position, hash))).collect())
}

async fn insert(entries: &[Entry], before: &[u8], tables: &mut PgConnection) -> Result<(), ProjectError> {
    fn column<'a, T>(entries: &'a [Entry], of: impl Fn(&'a Entry) -> T) -> Vec<T> {
        entries.iter().map(of).collect()
    }
    let mut hashes: Vec<Vec<u8>> = Vec::with_capacity(entries.len());
    for entry in entries {
        let before = hashes.last().map_or(before, Vec::as_slice);
        hashes.push(entry.link(before).to_vec());
    }
    sqlx::query(INSERT)
        .bind(column(entries, |entry| entry.tenant.as_str()))
        .bind(column(entries, |entry| entry.position))
        .bind(column(entries, |entry| entry.number))
        .bind(column(entries, |entry| entry.at))
        .bind(column(entries, |entry| entry.actor.as_str()))
        .bind(column(entries, |entry| entry.action.as_str()))
        .bind(column(entries, |entry| entry.category.as_str()))
        .bind(column(entries, |entry| entry.subject.as_str()))
        .bind(column(entries, |entry| entry.correlation.as_str()))
        .bind(column(entries, |entry| &entry.data))
        .bind(hashes)
        .execute(tables)
        .await?;
    Ok(())
}

pub(crate) type Row = (String, i64, i32, kernel::Timestamp, String, String, String, String, String, Value, Vec<u8>);

/// A row as an entry, and the hash that stands in it.
pub(crate) fn of_row(row: Row) -> (Entry, Vec<u8>) {
    let (tenant, position, number, at, actor, action, category, subject, correlation, data, hash) = row;
    (Entry { tenant, position, number, at, actor, action, category, subject, correlation, data }, hash)
}

/// Lets a tenant have what its members did while they were members, and nothing else of that kind.
async fn mend(tenant: &str, tables: &mut PgConnection) -> Result<(), ProjectError> {
    sqlx::query(WITHDRAW).bind(tenant).execute(&mut *tables).await?;
    let rows: Vec<Row> = sqlx::query_as(BELONGED).bind(tenant).bind(PEOPLE).fetch_all(&mut *tables).await?;
    let entries: Vec<Entry> = rows.into_iter().filter_map(|row| of_row(row).0.for_member(tenant)).collect();
    insert(&entries, &[], tables).await
}

/// Chains a tenant's entries anew.
async fn chain(tenant: &str, tables: &mut PgConnection) -> Result<(), ProjectError> {
    let (mut at, mut before) = ((0, -1), entry::first(tenant));
    loop {
        let rows: Vec<Row> = sqlx::query_as(ROWS).bind(tenant).bind(at.0).bind(at.1).fetch_all(&mut *tables).await?;
        let (mut positions, mut numbers, mut hashes) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let (entry, _) = of_row(row);
            before = entry.link(&before);
            at = (entry.position, entry.number);
            positions.push(entry.position);
            numbers.push(entry.number);
            hashes.push(before.to_vec());
        }
        if positions.is_empty() {
            return Ok(());
        }
        let update = sqlx::query(CHAIN).bind(tenant).bind(positions).bind(numbers).bind(hashes);
        update.execute(&mut *tables).await?;
    }
}
