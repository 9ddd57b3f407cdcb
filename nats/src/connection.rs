//! One connection to NATS, shared by everything in a process.

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use tokio::sync::watch;

/// How to log in.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// User name; empty for servers without authentication.
    pub user: String,
    /// Password.
    pub password: String,
}

/// A connection that mends itself.
#[derive(Clone)]
pub struct Connection {
    pub(crate) client: Client,
    pub(crate) context: async_nats::jetstream::Context,
    /// How often it has been made anew. Whoever reads should begin again then: consumers in memory are gone with a server.
    renewals: watch::Receiver<u64>,
    trouble: watch::Sender<Option<String>>,
}

/// Inboxes of the platform. Callers may listen on theirs (`_INBOX.>`), and must not hear what is meant for us.
const INBOXES: &str = "_INBOX_AIRSTREAM";

/// How long a request to JetStream may take before its outcome counts as unknown.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When no server answers at the address, or it does not take the credentials.
    pub async fn open(url: &str, credentials: &Credentials, name: &str) -> Result<Self, async_nats::ConnectError> {
        let (renewed, renewals) = watch::channel(0);
        let mut options = ConnectOptions::new()
            .name(name)
            .custom_inbox_prefix(INBOXES)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .connection_timeout(Duration::from_secs(3))
            // Reads arrive in bursts of a whole batch; a small buffer would drop messages of other subscriptions.
            .subscription_capacity(64 * 1024)
            .reconnect_delay_callback(|tries| Duration::from_millis((20 * tries as u64).min(1_000)))
            .event_callback(move |event| {
                if matches!(event, Event::Connected) {
                    renewed.send_modify(|count| *count += 1);
                }
                async move {
                    match event {
                        Event::Disconnected => tracing::warn!("the connection to NATS is lost; reconnecting"),
                        Event::Connected => tracing::debug!("connected to NATS"),
                        Event::SlowConsumer(id) => tracing::warn!(id, "NATS dropped messages for a slow subscription"),
                        other => tracing::debug!(event = %other, "NATS"),
                    }
                }
            });
        if !credentials.user.is_empty() {
            options = options.user_and_password(credentials.user.clone(), credentials.password.clone());
        }
        let client = options.connect(url).await?;
        let context = async_nats::jetstream::ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client.clone());
        Ok(Self { client, context, renewals, trouble: watch::Sender::new(None) })
    }

    /// The client, for doors that subscribe to subjects of their own.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The JetStream context, for inspection.
    #[must_use]
    pub fn jetstream(&self) -> &async_nats::jetstream::Context {
        &self.context
    }

    /// Ends when the connection has been lost and made anew.
    pub(crate) fn renewed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut renewals = self.renewals.clone();
        // The first connection counts, too, and may be announced only after we have begun.
        let first = (*renewals.borrow_and_update()).max(1);
        async move {
            if renewals.wait_for(|count| *count > first).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
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
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// The connected server's version.
    #[must_use]
    pub fn server_version(&self) -> String {
        self.client.server_info().version
    }
}
