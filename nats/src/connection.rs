//! One connection to NATS, shared by everything in a process.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectError, ConnectOptions, Event, HeaderMap};
use bytes::Bytes;
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;

/// How to log in.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// User name; empty for servers without authentication.
    pub user: String,
    /// Password.
    pub password: String,
}

/// A connection that mends itself; with several servers at its address, through any of them.
#[derive(Clone)]
pub struct Connection {
    pub(crate) client: Client,
    pub(crate) context: async_nats::jetstream::Context,
    link: watch::Receiver<Link>,
    trouble: watch::Sender<Option<String>>,
    servers: Arc<[String]>,
    credentials: Credentials,
    doors: Arc<OnceCell<Vec<Client>>>,
}

/// How often the connection has come and gone.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    made: u64,
    lost: u64,
}

/// Inboxes of the platform. Callers may listen on theirs (`_INBOX.>`), and must not hear what is meant for us.
const INBOXES: &str = "_INBOX_AIRSTREAM";

/// How long a write may take before its outcome counts as unknown: much longer than a flush, and short enough to look
/// for the commit and write it once more within a command's deadline.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

impl Connection {
    /// Connects to one of the servers at `url`, several separated by commas. When that one is lost, another one is taken.
    ///
    /// # Errors
    /// When no server answers at the address, or it does not take the credentials.
    pub async fn open(url: &str, credentials: &Credentials, name: &str) -> Result<Self, ConnectError> {
        let servers: Arc<[String]> = url.split(',').map(|server| server.trim().to_owned()).collect();
        let (changed, link) = watch::channel(Link::default());
        let options = options(credentials, name, servers.len()).event_callback(move |event| {
            changed.send_if_modified(|link| match event {
                Event::Connected => {
                    link.made += 1;
                    true
                }
                Event::Disconnected => {
                    link.lost += 1;
                    true
                }
                _ => false,
            });
            async move {
                match event {
                    Event::Disconnected => tracing::warn!("the connection to NATS is lost; reconnecting"),
                    Event::Connected => tracing::debug!("connected to NATS"),
                    Event::SlowConsumer(id) => tracing::warn!(id, "NATS dropped messages for a slow subscription"),
                    other => tracing::debug!(event = %other, "NATS"),
                }
            }
        });
        let client = options.connect(&*servers).await?;
        let context = async_nats::jetstream::ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client.clone());
        let (credentials, doors) = (credentials.clone(), Arc::default());
        Ok(Self { client, context, link, trouble: watch::Sender::new(None), servers, credentials, doors })
    }

    /// The clients on which doors listen: one per server of a cluster. A caller's request is then answered on the server
    /// that it came in on, and a server that dies takes nobody's callers with it but its own.
    pub(crate) async fn doors(&self) -> &[Client] {
        let open = || async {
            if self.servers.len() < 2 {
                return vec![self.client.clone()];
            }
            let mut doors = Vec::new();
            for server in &*self.servers {
                let options = options(&self.credentials, "airstream door", 1)
                    .ignore_discovered_servers()
                    // Until it is back, callers of its server are served through another one.
                    .reconnect_delay_callback(|tries| Duration::from_millis((20 * tries as u64).min(200)))
                    // One that is away now is listened on when it is back.
                    .retry_on_initial_connect();
                match options.connect(server).await {
                    Ok(client) => doors.push(client),
                    Err(error) => tracing::warn!(%error, "no door can be opened on one of the NATS servers"),
                }
            }
            if doors.is_empty() { vec![self.client.clone()] } else { doors }
        };
        self.doors.get_or_init(open).await
    }

    /// Tells whoever listens on a subject just now.
    pub async fn tell(&self, subject: String, headers: &[(&'static str, &str)], body: Bytes) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        if let Err(error) = self.client.publish_with_headers(subject, map, body).await {
            tracing::debug!(%error, "something could not be told");
        }
    }

    /// The client, for doors that subscribe to subjects of their own.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether every door that has been opened is connected to its server.
    #[must_use]
    pub fn doors_are_connected(&self) -> bool {
        self.doors.get().is_none_or(|doors| doors.iter().all(|door| door.connection_state() == State::Connected))
    }

    /// The JetStream context, for inspection.
    #[must_use]
    pub fn jetstream(&self) -> &async_nats::jetstream::Context {
        &self.context
    }

    /// Ends when the connection has been lost and made anew: consumers in memory are gone with a server, so whoever reads
    /// should begin again then.
    pub(crate) fn renewed(&self) -> impl Future<Output = ()> + Send + 'static {
        // The first connection counts, too, and may be announced only after we have begun.
        let first = self.link.borrow().made.max(1);
        self.once(move |link| link.made > first)
    }

    /// Ends when the connection is lost: what was asked on it is not answered any more.
    pub(crate) fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let before = self.link.borrow().lost;
        self.once(move |link| link.lost > before)
    }

    fn once(&self, happened: impl FnMut(&Link) -> bool + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
        let mut link = self.link.clone();
        async move {
            if link.wait_for(happened).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for a connection. Without one, requests would gather in the client and be sent when nobody waits for their
    /// answers any more.
    pub(crate) async fn is_up_by(&self, deadline: Instant) -> bool {
        let mut link = self.link.clone();
        while !self.is_connected() {
            // Should an announcement get lost, a look now and then finds out.
            let look_again = deadline.min(Instant::now() + Duration::from_millis(50));
            let _ = tokio::time::timeout_at(look_again, link.changed()).await;
            if Instant::now() >= deadline {
                return self.is_connected();
            }
        }
        true
    }

    /// Notes whether the log takes what it is given.
    pub(crate) fn note_trouble(&self, trouble: Option<String>) {
        self.trouble.send_if_modified(|known| {
            let changed = known.is_some() != trouble.is_some();
            if changed {
                match &trouble {
                    Some(reason) => tracing::error!(
                        reason,
                        "the log does not take commits; if it stays so, look at the disk of NATS and at its log"
                    ),
                    None => tracing::info!("the log takes commits again"),
                }
                *known = trouble;
            }
            changed
        });
    }

    /// Why the log does not take commits, as far as the last one tells; `None` when it does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Whether the connection is up right now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How often the connection has been lost and made anew.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.link.borrow().made.saturating_sub(1)
    }

    /// The connected server's version.
    #[must_use]
    pub fn server_version(&self) -> String {
        self.client.server_info().version
    }
}

/// What our connections have in common, for an address of so many servers.
fn options(credentials: &Credentials, name: &str, servers: usize) -> ConnectOptions {
    // A server that is silent is given up early only where there is another one to go to.
    let (silence, connecting) =
        if servers > 1 { (Duration::from_secs(1), Duration::from_secs(1)) } else { (SILENCE, Duration::from_secs(3)) };
    let options = ConnectOptions::new()
        .name(name)
        .custom_inbox_prefix(INBOXES)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .connection_timeout(connecting)
        // The client gives a connection up after two pings without an answer.
        .ping_interval(silence)
        // Reads arrive in bursts of a whole batch; a small buffer would drop messages of other subscriptions.
        .subscription_capacity(64 * 1024)
        .reconnect_delay_callback(|tries| Duration::from_millis((20 * tries as u64).min(1_000)));
    if credentials.user.is_empty() {
        return options;
    }
    options.user_and_password(credentials.user.clone(), credentials.password.clone())
}

/// How often a lone server is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(10);
