//! The same limits at the doors on the bus, where the subject tells who asks: the server lets nobody say that it is another.

use std::sync::Arc;

use kernel::{PrincipalId, Problem, TenantId};
use nats::{Handle, InOrder, Reply};
use serde_json::json;

use super::layer::too_often;
use super::{Class, Decision, Limiter, Who};

/// A door that answers 429 to whoever asks too often. Without a limiter, the door as it is.
#[must_use]
pub fn limited(limiter: Option<&Arc<Limiter>>, door: Handle) -> Handle {
    let Some(limiter) = limiter.cloned() else { return door };
    Arc::new(move |message| {
        let (limiter, door) = (Arc::clone(&limiter), Arc::clone(&door));
        Box::pin(async move {
            match admit(&limiter, message.subject()).await {
                Ok(()) => door(message).await,
                Err(problem) => Reply::problem(&problem),
            }
        })
    })
}

/// The same for the way into a queue, where order matters and an answer has the form of JetStream's own.
#[allow(clippy::async_yields_async, reason = "the next message is taken before the answer to this one is there")]
pub(crate) fn limited_in_order(limiter: Option<&Arc<Limiter>>, door: InOrder) -> InOrder {
    let Some(limiter) = limiter.cloned() else { return door };
    Arc::new(move |message| {
        let (limiter, door) = (Arc::clone(&limiter), Arc::clone(&door));
        Box::pin(async move {
            match admit(&limiter, message.subject()).await {
                Ok(()) => door(message).await,
                Err(problem) => {
                    let error = json!({ "code": problem.status, "err_code": 0, "description": problem.detail });
                    let reply = Reply::of(problem.status, &json!({ "error": error }), false);
                    Box::pin(std::future::ready(reply))
                }
            }
        })
    })
}

async fn admit(limiter: &Limiter, subject: &str) -> Result<(), Problem> {
    let mut tokens = subject.split('.').skip(1);
    let tenant = tokens.next().and_then(|token| TenantId::new(token).ok());
    let principal = tokens.next().and_then(|token| PrincipalId::new(token).ok());
    // What is wrong with a subject that names nobody the door says itself.
    let Some((tenant, principal)) = tenant.zip(principal) else { return Ok(()) };
    let own = match principal.as_str().starts_with("key_") {
        true => Who::Key(principal),
        false => Who::User(principal),
    };
    // One after the other: what is refused to one program does not count against all of them.
    for who in [own, Who::Tenant(tenant)] {
        if let Decision::Refused(standing) = limiter.admit(&who, Class::Write).await {
            return Err(too_often(&standing));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests report by panicking")]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::super::{MemoryBudgets, PerClass, Rate, Rates};
    use super::*;

    #[tokio::test]
    async fn a_key_a_person_and_a_tenant_have_each_their_own_limit() {
        let writes = |requests| PerClass { write: Some(Rate { requests, seconds: 3_600 }), ..PerClass::default() };
        let rates = Rates { user: writes(3), key: writes(4), tenant: writes(9), ..Rates::default() };
        let stop = CancellationToken::new();
        let limiter = Limiter::start(&rates, Arc::new(MemoryBudgets::default()), stop.clone());
        let passed = async |subject: &str| {
            let mut passed = 0;
            while admit(&limiter, subject).await.is_ok() {
                passed += 1;
            }
            let problem = admit(&limiter, subject).await.unwrap_err();
            assert!(problem.status == 429 && problem.retry_after_ms.is_some(), "{problem:?}");
            passed
        };
        let (person, key) = (passed("cmd.acme.usr_1.till.a.take").await, passed("queue.acme.key_1.till.a.take").await);
        // At once one less than in the long run (ADR 0021).
        assert_eq!((person, key), (2, 3));
        assert_eq!(passed("work.acme.key_1.pack").await, 0, "the other door is a way around it");
        assert_eq!(passed("cmd.acme.key_2.till.a.take").await, 3, "of the eight of the tenant");
        assert_eq!(passed("cmd.acme.key_3.till.a.take").await, 0);
        assert!(admit(&limiter, "cmd.bravo.key_9.till.a.take").await.is_ok());
        assert!(admit(&limiter, "cmd.nonsense").await.is_ok(), "the door says what is wrong with it");
        stop.cancel();
    }
}
