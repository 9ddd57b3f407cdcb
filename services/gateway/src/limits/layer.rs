//! The limits around routes: by address before anybody is asked who they are, by caller afterwards. Every answer tells how
//! its caller stands (draft-ietf-httpapi-ratelimit-headers-10).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use kernel::Problem;
use rest::{Fault, Holder, Origin, Quotas, Signed};

use super::{Class, Decision, Limiter, Standing, Who};
use crate::guard::{Guard, Needs, Rule};

pub(crate) const RATELIMIT: &str = "ratelimit";
pub(crate) const RATELIMIT_POLICY: &str = "ratelimit-policy";

/// What the two layers share.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) limiter: Option<Arc<Limiter>>,
    pub(crate) quotas: Arc<dyn Quotas>,
    pub(crate) guard: Guard,
}

impl Door {
    /// Asks every budget that is concerned, all at once.
    async fn admit(&self, whos: Vec<Who>, class: Class) -> Vec<Decision> {
        let Some(limiter) = &self.limiter else { return Vec::new() };
        match whos.as_slice() {
            [who] => vec![limiter.admit(who, class).await],
            whos => futures::future::join_all(whos.iter().map(|who| limiter.admit(who, class))).await,
        }
    }
}

/// The layer before it is known who asks.
pub(crate) async fn by_address(State(door): State<Door>, request: Request, next: Next) -> Response {
    // What is no route costs whoever looks for it as much as a look.
    let class = door.guard.rule(&request).map_or(Some(Class::Read), |rule| rule.class);
    let (Some(class), Some(origin)) = (class, request.extensions().get::<Origin>()) else {
        return next.run(request).await;
    };
    let decisions = door.admit(vec![Who::Address(origin.network())], class).await;
    answer(&decisions, async { next.run(request).await }).await
}

/// The layer after it is known who asks.
pub(crate) async fn by_caller(State(door): State<Door>, request: Request, next: Next) -> Response {
    let Some(signed) = request.extensions().get::<Arc<Signed>>().cloned() else { return next.run(request).await };
    let rule = door.guard.rule(&request).cloned();
    let Some(Rule { needs, class: Some(class) }) = rule else { return next.run(request).await };
    let decisions = door.admit(whos(&signed), class).await;
    answer(&decisions, async {
        if let Needs::Scope(scope) = &needs
            && let Err(problem) = door.quotas.admit(&signed, scope).await
        {
            return Fault(problem).into_response();
        }
        next.run(request).await
    })
    .await
}

fn whos(signed: &Signed) -> Vec<Who> {
    let principal = signed.principal.clone();
    let own = match signed.holder {
        Holder::Program => Who::Key(principal),
        Holder::Person { .. } | Holder::Development => Who::User(principal),
    };
    [Some(own), signed.tenant.clone().map(Who::Tenant)].into_iter().flatten().collect()
}

/// Goes on, or says that it was too often; either way the answer tells how its caller stands.
async fn answer(decisions: &[Decision], go_on: impl Future<Output = Response>) -> Response {
    let refused = decisions.iter().find_map(|decision| match decision {
        Decision::Refused(standing) => Some(standing),
        _ => None,
    });
    let mut response = match refused {
        Some(standing) => Fault(too_often(standing)).into_response(),
        None => go_on.await,
    };
    for decision in decisions {
        let (Decision::Admitted(standing) | Decision::Refused(standing)) = decision else { continue };
        let Standing { policy, rate, remaining, next } = standing;
        let (requests, window, next) = (rate.requests, rate.seconds, seconds(*next));
        let fields = [
            (RATELIMIT_POLICY, format!("\"{policy}\";q={requests};w={window}")),
            (RATELIMIT, format!("\"{policy}\";r={remaining};t={next}")),
        ];
        for (name, text) in fields {
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().append(HeaderName::from_static(name), value);
            }
        }
    }
    response
}

pub(super) fn too_often(standing: &Standing) -> Problem {
    let Standing { policy, rate, next, .. } = standing;
    let again = seconds(*next);
    let detail = format!(
        "Too many requests: the limit `{policy}` is {} at once and again in {} seconds. Come back in {again} s.",
        rate.requests, rate.seconds
    );
    Problem::new(429, "rate_limited", detail).retry_after(again * 1_000)
}

/// Whole seconds, rounded up, at least one: fields and `Retry-After` know no smaller ones.
fn seconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1)
}
