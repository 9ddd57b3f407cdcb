//! The reactor of people: it makes the archives that they ask for, and does what their erasure calls for.

use async_trait::async_trait;
use events::{person, tenant};
use kernel::{Envelope, FactError, Problem};
use runtime::react::{Reactor, Verdict};
use runtime::{EffectRow, Plan};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::privacy::Privacy;

/// The reactor.
pub struct Caretaker(Privacy);

impl Caretaker {
    /// Of these people.
    #[must_use]
    pub fn new(privacy: Privacy) -> Self {
        Self(privacy)
    }
}

/// What to do, as the record of effects keeps it. Ids only: the record outlives whom it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Asked {
    /// An archive is wanted.
    Export { export: String },
    /// Somebody is to be forgotten.
    Erase,
    /// Somebody has become a member; if they were erased meanwhile, they are none.
    Look { person: String },
}

#[async_trait]
impl Reactor for Caretaker {
    const NAME: &'static str = "people";
    const CATEGORIES: &'static [&'static str] = &[person::CATEGORY, tenant::CATEGORY];

    fn plan(&self, event: &Envelope<'_>) -> Result<Vec<Plan>, FactError> {
        plans(event)
    }

    async fn perform(&self, effect: &EffectRow) -> Verdict {
        let Ok(asked) = serde_json::from_value(effect.request.clone()) else {
            return Verdict::Park { reason: "the recorded effect makes no sense".to_owned() };
        };
        let id = effect.stream.id.as_str();
        let done = match asked {
            Asked::Export { export } => self.0.make_export(id, &export).await.map(str::to_owned),
            Asked::Erase => self.0.finish_erasure(id).await,
            Asked::Look { person } => self.0.forget_if_erased(&effect.stream.tenant, &person).await,
        };
        match done {
            Ok(note) => Verdict::Done { note, report: None },
            Err(problem) => verdict(&problem),
        }
    }
}

/// Nobody is forgotten by half: whatever is in the way, it is tried again, and people see that it is.
fn verdict(problem: &Problem) -> Verdict {
    match problem.is_transient() || problem.status >= 500 {
        true => Verdict::Retry {
            reason: problem.to_string(),
            after: problem.retry_after_ms.map(std::time::Duration::from_millis),
        },
        false => Verdict::Park { reason: problem.to_string() },
    }
}

fn plan(name: String, asked: &Asked) -> Vec<Plan> {
    vec![Plan::Do { name, due: None, request: json!(asked) }]
}

fn plans(event: &Envelope<'_>) -> Result<Vec<Plan>, FactError> {
    let look = |person: String| plan(format!("look/{person}"), &Asked::Look { person });
    if event.category() == tenant::CATEGORY {
        return Ok(match event.decode()? {
            tenant::Event::Created(created) => look(created.owner),
            tenant::Event::MemberJoined(joined) => look(joined.person),
            _ => Vec::new(),
        });
    }
    Ok(match event.decode()? {
        person::Event::ExportRequested(requested) => {
            plan(format!("export/{}", requested.export), &Asked::Export { export: requested.export })
        }
        person::Event::Erased(_) => plan("erase".to_owned(), &Asked::Erase),
        _ => Vec::new(),
    })
}
