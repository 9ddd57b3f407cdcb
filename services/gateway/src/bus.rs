//! The bus door: ask and wait. What arrives on `cmd.>` is a command; the answer is an acceptance or a problem.

use std::sync::Arc;

use bytes::Bytes;
use kernel::{CommandId, PrincipalId, Problem};
use nats::{Handle, Incoming, Reply, headers, subjects};
use runtime::{Answer, Commands, Request, trace};

use rest::Access;

/// The handler of `cmd.>`.
#[must_use]
pub fn commands(commands: Arc<dyn Commands>, access: Arc<dyn Access>) -> Handle {
    Arc::new(move |message| {
        let (commands, access) = (Arc::clone(&commands), Arc::clone(&access));
        Box::pin(async move {
            match execute(&*commands, &*access, &message).await {
                Ok(answer) => Reply::of(200, &answer, answer.repeated),
                Err(problem) => Reply::problem(&problem),
            }
        })
    })
}

async fn execute(commands: &dyn Commands, access: &dyn Access, message: &Incoming) -> Result<Answer, Problem> {
    let header = |name: &str| message.header(name).map(str::to_owned);
    let mut request = request(message.subject(), message.payload().clone(), access, &header).await?;
    let span = tracing::info_span!(
        target: trace::TARGET,
        parent: None,
        "bus",
        otel.kind = "server",
        messaging.system = "nats",
        messaging.destination.name = message.subject(),
    );
    trace::step(&span, &mut request.traceparent);
    commands.execute(request).await
}

/// Reads a command from a subject of either bus door, its body and its headers.
pub(crate) async fn request(
    subject: &str,
    body: Bytes,
    access: &dyn Access,
    header: &(dyn Fn(&str) -> Option<String> + Sync),
) -> Result<Request, Problem> {
    let addressed =
        subjects::addressed(subject).map_err(|error| Problem::new(400, "invalid_subject", error.to_string()))?;
    if !access.knows(&addressed.stream.tenant).await? {
        let detail = format!("There is no tenant `{}`.", addressed.stream.tenant);
        return Err(Problem::new(404, "unknown_tenant", detail));
    }
    if addressed.principal == PrincipalId::system() {
        return Err(Problem::new(403, "reserved_principal", "`airstream` is the platform itself; use your own name."));
    }
    let id = header(headers::COMMAND_ID).map(|text| CommandId::chosen(&text)).transpose()?;
    let expected_version = match header(headers::EXPECTED_VERSION) {
        None => None,
        Some(text) => Some(text.trim().parse().map_err(|_| {
            let detail = format!("`{}` is a number, the stream's version.", headers::EXPECTED_VERSION);
            Problem::new(400, "invalid_header", detail)
        })?),
    };
    // For tracing only, so what is unusable is left out rather than refused.
    let word = |name: &str| header(name).filter(|text| kernel::storable::is_word(text));
    Ok(Request {
        id,
        expected_version,
        correlation: word(headers::CORRELATION_ID),
        traceparent: word(headers::TRACEPARENT),
        ..Request::new(addressed.stream, &addressed.command, body, addressed.principal)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests report by panicking")]
mod tests {
    use async_trait::async_trait;
    use kernel::TenantId;
    use rest::Signed;
    use tokio::sync::broadcast;

    use super::*;

    /// Cannot tell anything now.
    struct Away;

    #[async_trait]
    impl Access for Away {
        async fn bearer(&self, _: &str) -> Result<Arc<Signed>, Problem> {
            Err(Problem::unavailable("The log is away.", 1_000))
        }

        async fn knows(&self, _: &TenantId) -> Result<bool, Problem> {
            Err(Problem::unavailable("The log is away.", 1_000))
        }

        fn lessened(&self) -> broadcast::Receiver<PrincipalId> {
            broadcast::channel(1).1
        }
    }

    #[tokio::test]
    async fn a_tenant_that_cannot_be_looked_up_is_not_an_unknown_one() {
        let access = crate::DevelopmentAccess::new(
            "dev".parse().unwrap(),
            "dev".parse().unwrap(),
            String::new(),
            Arc::new(Away),
        );
        let asked = async |subject: &str| request(subject, Bytes::new(), &access, &|_| None).await;
        assert_eq!(asked("cmd.acme.key_1.till.a.take").await.unwrap_err().status, 503);
        asked("cmd.dev.dev.till.a.take").await.unwrap();
    }
}
