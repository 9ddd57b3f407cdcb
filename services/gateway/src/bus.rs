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
    if !access.knows(&addressed.stream.tenant).await {
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
