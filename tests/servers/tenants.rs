//! The doors as tenants' programs find them: a server of the test's own with all its accounts, the platform behind it, and
//! stock clients with keys in front of it.

mod coming_in;
mod feed;
mod leaving;
mod walls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectOptions, HeaderMap};
use async_trait::async_trait;
use embedded::{NatsTenants, Options, Stack};
use futures::StreamExt;
use kernel::{PrincipalId, Problem, TenantId};
use nats::{Connection, Connections, Credentials, JetStreamLog, Signer, WorkQueue, topology};
use rest::{Access, Holder, Level, Signed};
use runtime::contract::Till;
use runtime::lease::Lease;
use runtime::memory::MemoryIndex;
use runtime::{Commands, Executor, Log, Registry};
use serde_json::Value;
use stories::eventually;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Keys, as identity would know them.
struct Keys {
    known: Mutex<HashMap<String, Arc<Signed>>>,
    lessened: broadcast::Sender<PrincipalId>,
}

#[async_trait]
impl Access for Keys {
    async fn bearer(&self, token: &str) -> Result<Arc<Signed>, Problem> {
        let known = self.known.lock().unwrap().get(token).cloned();
        known.ok_or_else(|| Problem::new(401, "unauthenticated", "The token is not valid."))
    }

    async fn knows(&self, tenant: &TenantId) -> Result<bool, Problem> {
        Ok(["acme", "bravo"].contains(&tenant.as_str()))
    }

    fn lessened(&self) -> broadcast::Receiver<PrincipalId> {
        self.lessened.subscribe()
    }
}

/// Who may do everything within a tenant.
fn key(principal: &str, tenant: &str) -> Signed {
    Signed {
        principal: principal.parse().unwrap(),
        holder: Holder::Program,
        tenant: Some(tenant.parse().unwrap()),
        level: Some(Level::Write),
        scopes: None,
        operator: false,
        expires_at: None,
    }
}

/// Servers, the platform's doors, and keys.
struct House {
    keys: Arc<Keys>,
    /// In the platform's account.
    inside: Connection,
    stop: CancellationToken,
    stack: Stack,
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl House {
    async fn open(servers: usize) -> Self {
        let nowhere = Some("postgres://nowhere".to_owned());
        let doors = ["cmd.>", "queue.>", "work.>"].map(str::to_owned).to_vec();
        let options = Options {
            ephemeral: true,
            postgres_url: nowhere,
            nats_servers: Some(servers),
            nats_doors: doors,
            ..Options::default()
        };
        let stack = embedded::start(options, |_| {}).await.unwrap();
        let (lessened, _) = broadcast::channel(4);
        let keys = Arc::new(Keys { known: Mutex::default(), lessened });
        let inside =
            connect(&stack, stack.nats().user.as_ref().unwrap(), stack.nats().password.as_ref().unwrap()).await;
        topology::ensure(&inside, servers).await.unwrap();
        let house = Self { keys, inside, stop: CancellationToken::new(), stack };
        house.open_doors().await;
        house
    }

    /// What a platform does when it starts; another call is another instance.
    async fn open_doors(&self) {
        let (tenants, stop) = (self.tenants(), &self.stop);
        let access: Arc<dyn Access> = self.keys.clone();
        let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(self.inside.clone()));
        let index = Arc::new(MemoryIndex::default());
        let executor =
            Executor::start(Arc::clone(&log), index, Registry::new().with::<Till>(), runtime::Options::default());
        let commands: Arc<dyn Commands> = Arc::new(executor);
        let door = connect(&self.stack, &tenants.user, &tenants.password).await;
        let ask = gateway::bus::commands(Arc::clone(&commands), Arc::clone(&access));
        nats::serve(&door, "cmd.>", ask, stop.clone()).await.unwrap();
        let queue = WorkQueue::new(self.inside.clone(), topology::COMMANDS);
        tokio::spawn(gateway::intake::run(door.clone(), queue, None, Lease::permanent("intake"), stop.clone()));
        tokio::spawn(gateway::feed::run(log, door.clone(), Lease::permanent("feed"), stop.clone()));
        let system = Credentials { user: "sys".to_owned(), password: self.stack.nats().users["sys"].clone() };
        let url = &self.stack.nats().url;
        let connections = Connections::open(url, &system, &tenants.account, &tenants.user).await.unwrap();
        tokio::spawn(gateway::cut::run(connections, Arc::clone(&access), stop.clone()));
        let callout = connect(&self.stack, &tenants.callout_user, &tenants.callout_password).await;
        let signer = Signer::new(&tenants.callout_seed, &tenants.account).unwrap();
        let admit = gateway::admit(access, Duration::from_secs(3_600));
        tokio::spawn(nats::serve_callout(&callout, signer, admit, stop.clone()).await.unwrap());
    }

    fn tenants(&self) -> &NatsTenants {
        self.stack.nats().tenants.as_ref().unwrap()
    }

    /// Gives out a key.
    fn knows(&self, token: &str, signed: Signed) {
        self.keys.known.lock().unwrap().insert(token.to_owned(), Arc::new(signed));
    }

    /// Takes it back.
    fn revokes(&self, token: &str) {
        let signed = self.keys.known.lock().unwrap().remove(token).unwrap();
        self.keys.lessened.send(signed.principal.clone()).unwrap();
    }

    /// A program with a key, as everybody's first program does it.
    async fn program(&self, token: &str, principal: &str, tenant: &str) -> Program {
        self.knows(token, key(principal, tenant));
        self.comes_in(token, principal, tenant).await.unwrap()
    }

    /// A program with what it has for a key.
    async fn comes_in(&self, token: &str, principal: &str, tenant: &str) -> Result<Program, ConnectError> {
        self.comes_in_at(&self.stack.nats().url, token, principal, tenant).await
    }

    async fn comes_in_at(
        &self,
        url: &str,
        token: &str,
        principal: &str,
        tenant: &str,
    ) -> Result<Program, ConnectError> {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let hear = Arc::clone(&told);
        let client = ConnectOptions::with_token(token.to_owned())
            .custom_inbox_prefix(format!("_INBOX.{tenant}.{principal}"))
            .ignore_discovered_servers()
            .request_timeout(Some(Duration::from_secs(5)))
            .event_callback(move |event| {
                hear.lock().unwrap().push(event.to_string().to_lowercase());
                async {}
            });
        let client = client.connect(url.split(',').collect::<Vec<_>>().as_slice()).await?;
        Ok(Program { client, told, who: format!("{tenant}.{principal}") })
    }

    /// Everything that goes through the tenants' account, seen by the platform.
    async fn witness(&self) -> async_nats::Subscriber {
        let door = connect(&self.stack, &self.tenants().user, &self.tenants().password).await;
        let witness = door.client().subscribe(">").await.unwrap();
        door.client().flush().await.unwrap();
        witness
    }

    async fn messages(&self, stream: &str) -> u64 {
        self.inside.jetstream().get_stream(stream).await.unwrap().cached_info().state.messages
    }
}

async fn connect(stack: &Stack, user: &str, password: &str) -> Connection {
    let credentials = Credentials { user: user.to_owned(), password: password.to_owned() };
    Connection::open(&stack.nats().url, &credentials, "test").await.unwrap()
}

/// A stock client.
struct Program {
    client: Client,
    told: Arc<Mutex<Vec<String>>>,
    /// `<tenant>.<principal>`
    who: String,
}

impl Program {
    /// Puts a coin into a till.
    async fn take(&self, till: &str) -> Value {
        let subject = format!("cmd.{}.till.{till}.take", self.who);
        let reply = self.client.request(subject, r#"{"coins":1}"#.into()).await.unwrap();
        serde_json::from_slice(&reply.payload).unwrap()
    }

    async fn queue(&self, till: &str, headers: HeaderMap) -> Result<u64, String> {
        let jetstream = async_nats::jetstream::new(self.client.clone());
        let subject = format!("queue.{}.till.{till}.take", self.who);
        let sent = jetstream.publish_with_headers(subject, headers, r#"{"coins":1}"#.into()).await;
        sent.unwrap().await.map(|ack| ack.sequence).map_err(|error| error.to_string())
    }

    /// Waits until its server, or its client, has said something.
    async fn is_told(&self, what: &str) {
        let what = what.to_lowercase();
        eventually(&format!("{}: {what}", self.who), async || {
            self.told.lock().unwrap().iter().any(|told| told.contains(&what))
        })
        .await;
    }

    /// Waits until the connection has ended.
    async fn is_cut(&self) {
        self.is_told("disconnected").await;
    }

    fn was_cut(&self) -> bool {
        self.told.lock().unwrap().iter().any(|told| told.contains("disconnected"))
    }
}

async fn next(messages: &mut async_nats::Subscriber) -> async_nats::Message {
    tokio::time::timeout(Duration::from_secs(20), messages.next()).await.expect("a message in time").unwrap()
}
