//! Process routing: other streams' events become a process's commands. A router is a reactor whose only effect is a
//! command, so recording, retrying and parking are the same.

use std::marker::PhantomData;

use async_trait::async_trait;
use kernel::{Category, Envelope, FactError, Process, StreamId, StreamName};
use serde_json::json;

use crate::react::{Reactor, Report, Verdict};
use crate::{EffectRow, Plan};

/// Routes events to a process.
pub struct Router<P>(PhantomData<fn() -> P>);

impl<P: Process> Router<P> {
    /// A router for `P`.
    #[must_use]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<P: Process> Default for Router<P> {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl<P: Process> Reactor for Router<P> {
    const NAME: &'static str = P::NAME;
    const CATEGORIES: &'static [&'static str] = P::LISTENS;

    fn plan(&self, event: &Envelope<'_>) -> Result<Vec<Plan>, FactError> {
        let routed = P::route(event);
        let plans = routed.into_iter().enumerate().map(|(n, routed)| Plan::Do {
            name: format!("{}/{n}", event.id),
            due: None,
            request: json!({ "to": routed.to, "command": routed.command, "body": routed.body }),
        });
        Ok(plans.collect())
    }

    async fn perform(&self, effect: &EffectRow) -> Verdict {
        use kernel::CommandSet;
        let text = |key: &str| effect.request.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
        let command = P::Command::SPECS.iter().find(|spec| spec.name == text("command"));
        let (Ok(category), Ok(id), Some(command)) = (Category::new(P::CATEGORY), StreamId::new(text("to")), command)
        else {
            return Verdict::Park { reason: format!("the recorded route makes no sense: {}", effect.request) };
        };
        let to = StreamName { tenant: effect.stream.tenant.clone(), category, id };
        let body = effect.request.get("body").cloned().unwrap_or_default();
        Verdict::Done { note: format!("routed to {to}"), report: Some(Report { to, command: command.name, body }) }
    }
}
