//! Hears on the log what has changed, so that what was remembered is forgotten: on every instance, within milliseconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use events::{key, person, tenant};
use futures::StreamExt;
use futures::stream::{BoxStream, select_all};
use kernel::{Category, Commit, Position, StreamName};
use runtime::{Filter, Log, LogError, Recorded, clock};
use tokio_util::sync::CancellationToken;

use crate::accounts::Accounts;

/// How long until a read that broke is begun again.
const AGAIN: Duration = Duration::from_millis(500);

/// Follows the log until `stop`.
pub async fn follow(accounts: Accounts, log: Arc<dyn Log>, stop: CancellationToken) {
    let following = async {
        let mut places = Places::new();
        loop {
            if let Err(error) = once(&accounts, &log, &mut places).await {
                tracing::warn!(%error, "identity does not hear the log; what is remembered lasts 30 seconds at most");
            }
            // Whatever happened meanwhile was not heard.
            accounts.memory.forget_all();
            tokio::time::sleep(AGAIN).await;
        }
    };
    let _: Option<()> = stop.run_until_cancelled(following).await;
}

/// Where each category has been heard to. A read that broke goes on there: who is connected somewhere and may do less is told
/// of once, and nobody asks again by themselves.
type Places = BTreeMap<&'static str, Position>;

type Commits = BoxStream<'static, Result<Recorded, LogError>>;

async fn once(accounts: &Accounts, log: &Arc<dyn Log>, places: &mut Places) -> Result<(), LogError> {
    let head = log.head().await?;
    let mut readers: Vec<Commits> = Vec::new();
    for category in [person::CATEGORY, tenant::CATEGORY, key::CATEGORY] {
        let after = *places.entry(category).or_insert(head);
        let category = Category::new(category).ok();
        readers.push(log.read(after, &Filter { category, ..Filter::default() }).await?.commits);
    }
    // What was looked up before is older than what is heard from here on.
    accounts.memory.forget_all();
    let mut commits = select_all(readers);
    while let Some(recorded) = commits.next().await {
        let recorded = recorded?;
        // What is not ours, or cannot be read, is somebody else's to complain about.
        if let Ok(Some((stream, commit))) = recorded.history() {
            heard(accounts, stream, &commit).await;
        }
        let category = recorded.stream.as_ref().map(|stream| stream.category.as_str());
        if let Some(place) = category.and_then(|category| places.get_mut(category)) {
            *place = recorded.position;
        }
    }
    Ok(())
}

async fn heard(accounts: &Accounts, stream: &StreamName, commit: &Commit<'_>) {
    for envelope in &commit.events {
        match stream.category.as_str() {
            person::CATEGORY => match envelope.decode::<person::Event>() {
                Ok(person::Event::SessionEnded(ended)) => {
                    accounts.memory.sessions.forget(ended.session.as_str());
                    accounts.memory.lessen(stream.id.as_str());
                }
                Ok(person::Event::SessionsEnded(_)) => accounts.memory.forget_sessions_of(stream.id.as_str()),
                Ok(person::Event::Erased(_)) => {
                    accounts.vault.forget(stream.id.as_str());
                    accounts.memory.operators.forget(stream.id.as_str());
                    accounts.memory.keys.forget_where(|opens| opens.owner == stream.id.as_str());
                    accounts.memory.lessen(stream.id.as_str());
                }
                Ok(person::Event::EmailConfirmed(_) | person::Event::EmailChanged(_)) => {
                    accounts.memory.operators.forget(stream.id.as_str());
                }
                _ => {}
            },
            tenant::CATEGORY => {
                accounts.memory.tenants.forget(&stream.tenant);
                match envelope.decode::<tenant::Event>() {
                    Ok(tenant::Event::RoleChanged(changed)) => member(accounts, stream, &changed.person).await,
                    Ok(tenant::Event::MemberLeft(left)) => member(accounts, stream, &left.person).await,
                    _ => {}
                }
            }
            _ => {
                accounts.memory.forget_key(stream.id.as_str());
                accounts.memory.lessen(stream.id.as_str());
            }
        }
    }
}

/// A member may do less than before, and so may what acts for them.
async fn member(accounts: &Accounts, tenant: &StreamName, person: &str) {
    accounts.memory.lessen(person);
    match accounts.api_keys.of_owner(person, tenant.tenant.as_str(), clock::now()).await {
        Ok(keys) => keys.iter().for_each(|key| accounts.memory.lessen(key)),
        // Whoever asks with such a key gets the right answer; who is connected by one stays so until it is revoked.
        Err(error) => tracing::warn!(%error, "the keys of a member who may do less are not known"),
    }
}
