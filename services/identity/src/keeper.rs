//! The reactor of API keys. It makes their rows agree with the log, in case whoever wrote the log did not come so far; and when
//! somebody leaves a tenant, it revokes what they have made there. Their keys are worth nothing by then, because every use asks
//! for the membership; this is so that the log says it, too, and that they stay so when somebody comes back.

use std::sync::Arc;

use async_trait::async_trait;
use events::key::{self, Revoked};
use events::tenant;
use kernel::{CommandId, Envelope, FactError, Problem, StreamName, TenantId, Timestamp};
use projections::Database;
use projections::identity::ApiKeys;
use runtime::react::{Reactor, Verdict};
use runtime::{Commands, EffectRow, Plan, Request};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The reactor.
pub struct Keeper {
    keys: ApiKeys,
    commands: Arc<dyn Commands>,
}

/// What to do, as the record of effects keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Asked {
    /// A secret counts.
    Settle { prefix: String, version: u64 },
    /// The key has ended.
    End,
    /// The keys of a member who left then have ended.
    EndAll { person: String, left_at: Timestamp },
}

impl Keeper {
    /// Sends its commands to `commands`.
    #[must_use]
    pub fn new(database: &Database, commands: Arc<dyn Commands>) -> Self {
        Self { keys: ApiKeys::new(database), commands }
    }

    async fn act(&self, effect: &EffectRow) -> Result<String, Problem> {
        let asked = serde_json::from_value(effect.request.clone());
        let (tenant, id) = (&effect.stream.tenant, effect.stream.id.as_str());
        match asked.map_err(|_| Problem::malformed("the recorded effect makes no sense"))? {
            Asked::Settle { prefix, version } => {
                self.keys.settle(id, &prefix, i64::try_from(version).unwrap_or(i64::MAX)).await?;
                Ok("settled".to_owned())
            }
            Asked::End => {
                self.keys.revoke(tenant.as_str(), id).await?;
                Ok("ended".to_owned())
            }
            Asked::EndAll { person, left_at } => {
                let keys = self.keys.of_owner(&person, tenant.as_str(), left_at).await?;
                // One that cannot be revoked now keeps no other one alive.
                let mut failed = None;
                for key in &keys {
                    failed = self.revoke(tenant, key, effect).await.err().or(failed);
                }
                failed.map_or(Ok(()), Err)?;
                Ok(format!("revoked {}", keys.len()))
            }
        }
    }

    async fn revoke(&self, tenant: &TenantId, key: &str, effect: &EffectRow) -> Result<(), Problem> {
        let stream = StreamName::new(tenant.as_str(), key::CATEGORY, key)?;
        let body = json!(Revoked { reason: "owner_left".to_owned() });
        let request = Request {
            id: Some(CommandId::reserved(&format!("owner-left.{key}"))?),
            correlation: Some(effect.correlation.clone()),
            causation: Some(effect.event.clone()),
            traceparent: effect.traceparent.clone(),
            ..Request::internal(stream, "revoke", body.to_string())
        };
        match self.commands.execute(request).await {
            // Its maker was interrupted before the log knew of it.
            Err(problem) if problem.code != "unknown_key" => return Err(problem),
            _ => {}
        }
        self.keys.revoke(tenant.as_str(), key).await?;
        Ok(())
    }
}

fn plan(name: &str, asked: &Asked) -> Vec<Plan> {
    vec![Plan::Do { name: name.to_owned(), due: None, request: json!(asked) }]
}

#[async_trait]
impl Reactor for Keeper {
    const NAME: &'static str = "api-keys";
    const CATEGORIES: &'static [&'static str] = &[key::CATEGORY, tenant::CATEGORY];

    fn plan(&self, event: &Envelope<'_>) -> Result<Vec<Plan>, FactError> {
        plans(event)
    }

    async fn perform(&self, effect: &EffectRow) -> Verdict {
        match self.act(effect).await {
            Ok(note) => Verdict::Done { note, report: None },
            Err(problem) if problem.is_transient() || problem.status >= 500 => Verdict::Retry {
                reason: problem.to_string(),
                after: problem.retry_after_ms.map(std::time::Duration::from_millis),
            },
            Err(problem) => Verdict::Park { reason: problem.to_string() },
        }
    }
}

fn plans(event: &Envelope<'_>) -> Result<Vec<Plan>, FactError> {
    let version = event.streamversion;
    if event.type_name.starts_with("tenant.") {
        return Ok(match event.decode()? {
            tenant::Event::MemberLeft(left) => {
                let asked = Asked::EndAll { person: left.person.clone(), left_at: event.time };
                plan(&format!("{}/left", left.person), &asked)
            }
            _ => Vec::new(),
        });
    }
    Ok(match event.decode()? {
        key::Event::Issued(issued) => plan("settle/1", &Asked::Settle { prefix: issued.prefix, version }),
        key::Event::Rotated(rotated) => {
            plan(&format!("settle/{version}"), &Asked::Settle { prefix: rotated.prefix, version })
        }
        key::Event::Revoked(_) => plan("end", &Asked::End),
    })
}
