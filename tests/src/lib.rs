//! Real servers for tests: one pair per test process (and one cluster, for the tests that need it), an account of its own on NATS and a database of its own on
//! Postgres per test. Nothing is mocked and nothing has to be installed by hand.

pub mod guests;

use std::time::{Duration, Instant};

use nats::{Connection, Credentials};
use projections::{Database, migrate};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A migrated database that every test's own is a copy of. Named after the migrations, so that a changed one makes a
/// new template.
static TEMPLATE: OnceCell<String> = OnceCell::const_new();

/// What one test has to itself.
pub struct Servers {
    /// Connected to an account without streams.
    pub nats: Connection,
    /// Where, for further connections.
    pub nats_url: String,
    /// The account's user.
    pub credentials: Credentials,
    /// A freshly migrated database.
    pub database: Database,
    /// Where, for further connections.
    pub postgres_url: String,
    /// In a cluster: the right to be there while nobody kills its servers, or the right to kill them.
    _turn: Option<Turn>,
}

/// Tests of the cluster share it until one wants it for itself, to kill its servers.
static TURNS: RwLock<()> = RwLock::const_new(());

#[allow(dead_code, reason = "held, not read")]
enum Turn {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Servers {
    /// Starts the pair if this process has none yet, and takes a fresh account and a fresh database.
    ///
    /// # Errors
    /// When a server cannot be had: the test fails then, it is not skipped.
    pub async fn fresh() -> anyhow::Result<Self> {
        let shared = embedded::shared(options()).await?;
        Self::with_account(shared.account()?, None).await
    }

    /// As [`Servers::fresh`], in a cluster of three NATS servers that other tests use as well.
    ///
    /// # Errors
    /// As [`Servers::fresh`].
    pub async fn in_cluster() -> anyhow::Result<Self> {
        let turn = Turn::Shared(TURNS.read().await);
        Self::with_account(cluster().await?.account()?, Some(turn)).await
    }

    /// As [`Servers::in_cluster`], with nobody else there.
    ///
    /// # Errors
    /// As [`Servers::fresh`].
    pub async fn alone_in_cluster() -> anyhow::Result<Self> {
        let turn = Turn::Alone(TURNS.write().await);
        Self::with_account(cluster().await?.account()?, Some(turn)).await
    }

    async fn with_account(account: embedded::TestAccount, turn: Option<Turn>) -> anyhow::Result<Self> {
        let credentials = Credentials { user: account.user, password: account.password };
        let nats = Connection::open(&account.url, &credentials, "test").await?;
        let postgres_url = fresh_database(embedded::shared(options()).await?).await?;
        let database = Database::open(&postgres_url, 8).await?;
        Ok(Self { nats, nats_url: account.url, credentials, database, postgres_url, _turn: turn })
    }

    /// As [`Servers::fresh`], with the streams created.
    ///
    /// # Errors
    /// As [`Servers::fresh`].
    pub async fn with_topology() -> anyhow::Result<Self> {
        let servers = Self::fresh().await?;
        nats::topology::ensure(&servers.nats, 1).await?;
        Ok(servers)
    }
}

/// The three servers of this process, for those who kill them.
///
/// # Errors
/// When they cannot be had.
pub async fn cluster() -> anyhow::Result<&'static embedded::Shared> {
    let doors = vec!["cmd.>".to_owned()];
    let options = embedded::SharedOptions { accounts: 16, nats_doors: doors, ..options() };
    Ok(embedded::shared_cluster(options).await?)
}

fn options() -> embedded::SharedOptions {
    embedded::SharedOptions::new(env!("CARGO_MANIFEST_DIR"))
}

async fn fresh_database(shared: &embedded::Shared) -> anyhow::Result<String> {
    let url_of = |name: &str| {
        shared.postgres().url_of(name).ok_or_else(|| anyhow::anyhow!("the test Postgres has no address of its own"))
    };
    let admin = &shared.postgres().url;
    let template = TEMPLATE
        .get_or_try_init(|| async {
            let name = format!("template_{}", uuid::Uuid::now_v7().simple());
            let mut connection = PgConnection::connect(admin).await?;
            sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await?;
            let database = Database::open(&url_of(&name)?, 1).await?;
            migrate(database.pool()).await?;
            // A template must have no connections while it is copied.
            database.close().await;
            anyhow::Ok(name)
        })
        .await?;
    let name = format!("test_{}", uuid::Uuid::now_v7().simple());
    let mut connection = PgConnection::connect(admin).await?;
    let copy = format!("CREATE DATABASE {name} TEMPLATE {template}");
    // Two copies at once refuse each other; wait for the other one.
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match sqlx::raw_sql(AssertSqlSafe(copy.clone())).execute(&mut connection).await {
            Ok(_) => return url_of(&name),
            Err(error) if Instant::now() > until => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Waits for a state, with a deadline.
///
/// # Panics
/// When it does not come in time.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
