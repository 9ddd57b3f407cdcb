//! A caller as `docs/bus.md` wants it: asks again with the same command id until it hears a final answer.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use checker::Outcome;
use futures::stream::{self, StreamExt};
use serde_json::json;

use crate::ledger::{Heard, Ledger};
use crate::mix::{Command, Door};
use crate::world::{TOKEN, World};

/// How long one try may take before the caller asks again: shorter than the platform's own limit, so that some answers
/// come when nobody waits for them any more.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// The pause after a try that brought no final answer.
const PAUSE: Duration = Duration::from_millis(50);
/// Longer than any pause and any recovery: a caller who is not answered by then never will be.
const GIVE_UP: Duration = Duration::from_secs(120);
/// Connections to NATS, shared by all callers.
const CONNECTIONS: usize = 8;

/// The doors, and the ledger in which every try is written down.
pub(crate) struct Callers {
    nats: Vec<async_nats::Client>,
    /// In the platform's account, for looking at what came of it.
    pub(crate) inside: async_nats::jetstream::Context,
    http: reqwest::Client,
    urls: Vec<String>,
    pub(crate) ledger: Ledger,
}

impl Callers {
    pub(crate) async fn connect(world: &World) -> Self {
        let address = world.stack.nats();
        let tenants = address.tenants.as_ref().unwrap();
        let connect = async |user: &str, password: &str| {
            let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
                .request_timeout(Some(PATIENCE))
                .custom_inbox_prefix("_INBOX.dev.dev")
                .reconnect_delay_callback(|_| Duration::from_millis(50));
            options.connect(&address.url).await.unwrap()
        };
        let one = |_| connect(&tenants.user, &tenants.password);
        let nats = stream::iter(0..CONNECTIONS).then(one).collect().await;
        let inside = connect(address.user.as_ref().unwrap(), address.password.as_ref().unwrap()).await;
        let inside = async_nats::jetstream::new(inside);
        let urls = world.airstreams.iter().map(|airstream| airstream.url.clone()).collect();
        Self { nats, inside, http: reqwest::Client::new(), urls, ledger: Ledger::default() }
    }

    pub(crate) fn nats(&self, who: u64) -> &async_nats::Client {
        &self.nats[who as usize % self.nats.len()]
    }

    /// Asks until there is a final answer, which is given back.
    pub(crate) async fn ask(&self, who: u64, command: &Command) -> Option<Heard> {
        let expected = command.conditional.then(|| self.ledger.version(&command.full_stream()));
        self.until_final(who, command, expected, true).await
    }

    /// Asks with an id that stands for something else: nothing of that goes into the ledger, where ids have one meaning.
    pub(crate) async fn misuse(&self, who: u64, command: &Command) {
        let heard = self.until_final(who, command, None, false).await;
        let code = heard.as_ref().map(|heard| (heard.status, heard.body["code"].as_str().unwrap_or_default()));
        if code != Some((422, "command_id_reused")) {
            let sentence = format!(
                "another body under the id `{}` of `{}` was answered {code:?}",
                command.id,
                command.full_stream()
            );
            self.ledger.finding(sentence);
        }
    }

    async fn until_final(&self, who: u64, command: &Command, expected: Option<u64>, noted: bool) -> Option<Heard> {
        let give_up = Instant::now() + GIVE_UP;
        for attempt in 0.. {
            let heard = match command.door {
                Door::Http => self.over_http(who as usize + attempt, command, expected).await,
                Door::Nats | Door::Queue => self.over_nats(who, command, expected).await,
            };
            if noted {
                self.ledger.tried(command, heard.as_ref());
            }
            match heard.as_ref().map(Heard::outcome) {
                None | Some(Outcome::Unknown | Outcome::NotNow { .. }) if Instant::now() < give_up => {
                    tokio::time::sleep(PAUSE).await;
                }
                None | Some(Outcome::Unknown | Outcome::NotNow { .. }) => break,
                Some(_) => return heard,
            }
        }
        let sentence =
            format!("`{}` on `{}` got no final answer within {GIVE_UP:?}", command.id, command.full_stream());
        self.ledger.finding(sentence);
        None
    }

    async fn over_nats(&self, who: u64, command: &Command, expected: Option<u64>) -> Option<Heard> {
        let subject = format!("cmd.dev.dev.{}.{}.{}", command.category, command.stream, command.name);
        let mut headers = HeaderMap::new();
        headers.insert("Airstream-Command-Id", command.id.as_str());
        if let Some(version) = expected {
            headers.insert("Airstream-Expected-Version", version.to_string());
        }
        let asked = self.nats(who).request_with_headers(subject, headers, command.body.to_string().into());
        let reply = asked.await.ok()?;
        let status = reply.headers.as_ref()?.get("Airstream-Status")?.as_str().parse().ok()?;
        Some(Heard::new(status, reply.payload.to_vec()))
    }

    async fn over_http(&self, which: usize, command: &Command, expected: Option<u64>) -> Option<Heard> {
        let url = format!("{}/v1/commands", self.urls[which % self.urls.len()]);
        let body = json!({
            "category": command.category, "id": command.stream, "command": command.name, "body": command.body,
            "command_id": command.id, "expected_version": expected,
        });
        let request = self.http.post(url).bearer_auth(TOKEN).header("content-type", "application/json");
        let response = request.timeout(PATIENCE).body(body.to_string()).send().await.ok()?;
        let status = response.status().as_u16();
        Some(Heard::new(status, response.bytes().await.ok()?.to_vec()))
    }

    /// Publishes to the queue until the queue has it. A repetition may put a second copy there, which must not count.
    pub(crate) async fn publish(&self, who: u64, command: &Command) {
        let jetstream = async_nats::jetstream::new(self.nats(who).clone());
        let subject = format!("queue.dev.dev.{}.{}.{}", command.category, command.stream, command.name);
        let mut headers = HeaderMap::new();
        headers.insert("Airstream-Command-Id", command.id.as_str());
        let give_up = Instant::now() + GIVE_UP;
        while Instant::now() < give_up {
            let sent =
                jetstream.publish_with_headers(subject.clone(), headers.clone(), command.body.to_string().into());
            let taken = async { sent.await.ok()?.await.ok() };
            if let Ok(Some(_)) = tokio::time::timeout(PATIENCE, taken).await {
                self.ledger.queued(command);
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.ledger.finding(format!("the queue did not take `{}` within {GIVE_UP:?}", command.id));
    }
}
