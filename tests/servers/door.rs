//! The bus door as the platform opens it, and stock clients in front of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kernel::{PrincipalId, Problem, StreamName, TenantId};
use nats::{Connection, Credentials};
use rest::{Access, Signed};
use runtime::{Answer, Commands, Executor};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Whoever runs the contract's tills.
struct Contract;

#[async_trait]
impl Access for Contract {
    async fn bearer(&self, _: &str) -> Result<Arc<Signed>, Problem> {
        unreachable!("nobody comes by HTTP")
    }

    async fn knows(&self, tenant: &TenantId) -> Result<bool, Problem> {
        Ok(tenant.as_str() == "contract")
    }

    fn lessened(&self) -> broadcast::Receiver<PrincipalId> {
        broadcast::channel(1).1
    }
}

pub(crate) async fn open(
    connection: &Connection,
    executor: &Executor,
    stop: &CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let commands: Arc<dyn Commands> = Arc::new(executor.clone());
    let handle = gateway::bus::commands(commands, Arc::new(Contract));
    nats::serve(connection, "cmd.>", handle, stop.clone()).await.unwrap()
}

/// A client of one server, that waits as long as a command may take.
pub(crate) async fn caller(url: &str, credentials: &Credentials) -> async_nats::Client {
    async_nats::ConnectOptions::with_user_and_password(credentials.user.clone(), credentials.password.clone())
        .request_timeout(Some(Duration::from_secs(12)))
        .custom_inbox_prefix("_INBOX.contract.ann")
        .ignore_discovered_servers()
        .connect(url)
        .await
        .unwrap()
}

/// Asks once.
pub(crate) async fn ask(client: &async_nats::Client, till: &StreamName) -> Result<Answer, String> {
    let subject = format!("cmd.{}.ann.{}.{}.take", till.tenant, till.category, till.id);
    let reply = client.request(subject, r#"{"coins":1}"#.into()).await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&reply.payload).map_err(|_| String::from_utf8_lossy(&reply.payload).into_owned())
}
