//! Sessions and keys that end while the log cannot be written: whoever is connected by them is cut off nevertheless.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use identity::access::PlatformAccess;
use identity::accounts::{Accounts, Lifetimes, PLATFORM, Parts};
use identity::oauth::Providers;
use identity::password::Hasher;
use identity::person::People;
use identity::refresh::{RefreshToken, RefreshTokens};
use identity::signing::{Names, Signing};
use identity::tenant::Tenants;
use kernel::{Problem, StreamName, TenantId};
use projections::identity::{ApiKeys, NewApiKey, NewSecret, NewSession, Sessions};
use projections::mail::Outbox;
use rest::{Access as _, Chain, Origin};
use runtime::memory::{MemoryIndex, MemoryLog};
use runtime::{Answer, Commands, Executor, Options, Registry, Request};
use serde_json::json;
use stories::Servers;
use vault::{MasterKey, MemoryKeyring, Vault};

/// Writes nothing.
struct Away;

#[async_trait]
impl Commands for Away {
    async fn execute(&self, _: Request) -> Result<Answer, Problem> {
        Err(Problem::unavailable("The log is away.", 1_000))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ends_while_the_log_is_away_is_cut_off_at_once() {
    let database = Servers::fresh().await.unwrap().database;
    let master = MasterKey::parse(&MasterKey::generate()).unwrap();
    let vault = Vault::new(master.clone(), Arc::new(MemoryKeyring::default()));
    let registry = Registry::new().with::<People>().with::<Tenants>();
    let log = Arc::new(MemoryLog::new());
    let index = Arc::new(MemoryIndex::default());
    let executor = Executor::start(log, index, registry, Options::default());
    let names = Names { issuer: "https://air.example.org".into(), audience: "https://air.example.org/v1".into() };
    let accounts = Accounts::new(Parts {
        commands: Arc::new(Away),
        executor: executor.clone(),
        database: database.clone(),
        master: master.clone(),
        vault: vault.clone(),
        hasher: Hasher::new(1, Duration::from_secs(10)),
        signing: Arc::new(Signing::load(&database, &master, names).await.unwrap()),
        outbox: Outbox::new(&database, vault.clone()),
        providers: Providers::default(),
        lifetimes: Lifetimes::default(),
    });
    let access = PlatformAccess::new(accounts.clone(), Vec::new());
    let mut lessened = access.lessened();
    let mut cut = || lessened.try_recv().map(|whom| whom.to_string());

    let ann = json!({ "person": { "email": vault.seal("usr_ann", "email", "ann@example.org").await.unwrap(), "method": "password" } });
    let stream = StreamName::new(PLATFORM, events::person::CATEGORY, "usr_ann").unwrap();
    executor.execute(Request::internal(stream, "register", ann.to_string())).await.unwrap();
    let sessions = Sessions::new(&database, 600.0);
    let ids = [1, 2, 3].map(|n| format!("ses_{n:032x}"));
    for id in &ids {
        let session = NewSession {
            session: id.clone(),
            person: "usr_ann".into(),
            amr: vec!["pwd".into()],
            origin: vault.seal("usr_ann", "origin", "{}").await.unwrap(),
            tenant: None,
            lifetime_seconds: 3_600.0,
            auth_time: runtime::clock::now(),
            password_number: None,
        };
        assert!(sessions.open(&session).await.unwrap());
    }

    assert_eq!(accounts.revoke("usr_ann", &ids[0]).await.unwrap_err().status, 503);
    assert_eq!(cut().as_deref(), Ok("usr_ann"), "one session");
    // A token that comes again, two generations late.
    for counter in 0..2 {
        sessions.refresh(&ids[1], counter).await.unwrap();
    }
    let stolen = RefreshToken { session: ids[1].clone(), counter: 0 };
    let stolen = RefreshTokens::new(&master).sign(&stolen).unwrap();
    let from = Origin::new("192.0.2.1".parse().unwrap(), None);
    assert_eq!(accounts.refresh(&stolen, &from).await.unwrap_err().status, 503);
    assert_eq!(cut().as_deref(), Ok("usr_ann"), "a token that was stolen");
    assert_eq!(accounts.revoke_all("usr_ann", None).await.unwrap_err().status, 503);
    assert_eq!(cut().as_deref(), Ok("usr_ann"), "all sessions");
    assert!(accounts.revoke_all("usr_ann", None).await.is_err());
    assert!(cut().is_err(), "there was nothing left to end");

    let key = NewApiKey {
        key: "key_1".into(),
        tenant: "tnt_1".into(),
        owner: "usr_ann".into(),
        name: "import".into(),
        scopes: Vec::new(),
    };
    let secret =
        NewSecret { digest: b"a".to_vec(), prefix: "ask_a".into(), lifetime_seconds: 60.0, overlap_seconds: None };
    ApiKeys::new(&database).make(&key, &secret).await.unwrap();
    let tenant = TenantId::new("tnt_1").unwrap();
    let revoked = accounts.revoke_key(&tenant, "usr_ann", "key_1", None, Chain::default()).await;
    assert_eq!(revoked.unwrap_err().status, 503);
    assert_eq!(cut().as_deref(), Ok("key_1"));
}
