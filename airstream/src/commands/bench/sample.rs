//! What the log is measured with: the till of `runtime::contract`, the smallest decider that decides anything. A real
//! one would add its own work to our side only, and hide what the machine around it costs.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use clap::ValueEnum;
use gateway::DevelopmentAccess;
use kernel::{CommandId, Draft, EventSet as _, Fingerprint, NewEvent, PrincipalId, StreamName, TenantId};
use nats::headers;
use runtime::contract::{Coins, Till, TillEvent};
use runtime::memory::MemoryIndex;
use runtime::{Commands, Executor, Log, Options, Registry, Request, clock};
use tokio_util::sync::CancellationToken;

use super::place::Place;
use super::raw::Message;

const TENANT: &str = "bench";
const PRINCIPAL: &str = "bench";
const COMMAND: &str = "take";
const BODY: &[u8] = br#"{"coins":1}"#;

/// The streams of one side: `till` and a number.
pub(super) fn stream(side: &str, number: usize) -> anyhow::Result<StreamName> {
    Ok(StreamName::new(TENANT, "till", &format!("{side}-{number:06}"))?)
}

fn command_id() -> anyhow::Result<CommandId> {
    Ok(CommandId::new(&clock::fresh_id("cmd_"))?)
}

/// A message as the writer would make it: the same headers, the same number of bytes.
pub(super) fn message(stream: StreamName) -> anyhow::Result<Message> {
    let id = command_id()?;
    let event = TillEvent::Taken(Coins { coins: 1 });
    let draft = Draft {
        stream: stream.clone(),
        command: COMMAND.to_owned(),
        fingerprint: Fingerprint::of(COMMAND, BODY),
        version_before: 0,
        at: clock::now(),
        actor: PrincipalId::new(PRINCIPAL)?,
        correlation: id.as_str().to_owned(),
        causation: id.as_str().to_owned(),
        traceparent: None,
        events: vec![NewEvent::of(&event)],
        id,
    };
    Ok(Message::new(stream, draft.to_bytes().into(), event.type_name().to_owned()))
}

/// Which way commands take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Through {
    /// Straight into the executor.
    Executor,
    /// A request on `cmd.>`, as programs of other languages send it.
    Door,
}

impl Through {
    pub(super) fn word(self) -> &'static str {
        match self {
            Through::Executor => "executor",
            Through::Door => "door",
        }
    }

    /// Appended to the names of figures that are not the usual ones.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Through::Executor => "",
            Through::Door => " (through the door)",
        }
    }
}

/// The executor over the log, and the way to it.
#[derive(Clone)]
pub(super) struct Tills {
    executor: Executor,
    /// A caller's own connection, when commands come through the door.
    caller: Option<Client>,
    principal: PrincipalId,
    stop: CancellationToken,
}

impl Tills {
    pub(super) async fn open(place: &Place, log: Arc<dyn Log>, through: Through) -> anyhow::Result<Self> {
        let registry = Registry::new().with::<Till>();
        // Nobody repeats a command here, and no stream gets more commands than a writer remembers: the index is not asked.
        let executor = Executor::start(log, Arc::new(MemoryIndex::default()), registry, Options::default());
        let (principal, stop) = (PrincipalId::new(PRINCIPAL)?, CancellationToken::new());
        let caller = match through {
            Through::Executor => None,
            Through::Door => {
                let access = DevelopmentAccess::new(
                    TenantId::new(TENANT)?,
                    principal.clone(),
                    String::new(),
                    Arc::new(gateway::Nobody::default()),
                );
                let handle = gateway::bus::commands(Arc::new(executor.clone()), Arc::new(access));
                nats::serve(&place.connection().await?, "cmd.>", handle, stop.clone()).await?;
                let addresses = &place.addresses;
                let options = async_nats::ConnectOptions::with_user_and_password(
                    addresses.nats_user.clone(),
                    addresses.nats_password.clone(),
                );
                let inbox = nats::subjects::inbox(&TenantId::new(TENANT)?, &principal);
                let options = options.custom_inbox_prefix(inbox);
                Some(options.subscription_capacity(64 * 1024).connect(&addresses.nats_url).await?)
            }
        };
        Ok(Self { executor, caller, principal, stop })
    }

    /// One command, accepted.
    pub(super) async fn take(&self, stream: &StreamName) -> anyhow::Result<()> {
        let id = command_id()?;
        let Some(caller) = &self.caller else {
            let request = Request::new(stream.clone(), COMMAND, Bytes::from_static(BODY), self.principal.clone());
            let answer = self.executor.execute(request.with_id(id)).await;
            return answer.map(drop).map_err(|problem| anyhow::anyhow!("a command was refused: {}", problem.detail));
        };
        let mut map = HeaderMap::new();
        map.insert(headers::COMMAND_ID, id.as_str());
        let subject = format!("cmd.{}.{}.{}.{}.{COMMAND}", stream.tenant, PRINCIPAL, stream.category, stream.id);
        let reply = caller.request_with_headers(subject, map, Bytes::from_static(BODY)).await;
        let reply = reply.context("a command was not answered")?;
        let status = reply.headers.as_ref().and_then(|map| map.get(headers::STATUS)).map(ToString::to_string);
        if status.as_deref() != Some("200") {
            bail!("a command was refused: {}", String::from_utf8_lossy(&reply.payload));
        }
        Ok(())
    }

    pub(super) async fn close(self) {
        self.stop.cancel();
        self.executor.close().await;
    }
}
