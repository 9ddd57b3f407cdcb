//! Keys of programs on a real database: a secret counts once the log says so, in whatever order that is heard.

use std::sync::Arc;

use identity::keeper::Keeper;
use identity::key::Keys;
use identity::tenant::Tenants;
use kernel::{PrincipalId, StreamName, Timestamp};
use nats::JetStreamLog;
use projections::commits::PgCommitIndex;
use projections::identity::{ApiKeys, NewApiKey, NewSecret};
use projections::{Database, PgEffects};
use runtime::lease::Lease;
use runtime::react::{self, Reactor as _};
use runtime::{Commands, Executor, Log, Options, Registry, Request};
use serde_json::json;
use stories::{Servers, eventually};
use tokio_util::sync::CancellationToken;

async fn database() -> Database {
    Servers::fresh().await.unwrap().database
}

fn key(id: &str) -> NewApiKey {
    NewApiKey {
        key: id.into(),
        tenant: "tnt_1".into(),
        owner: "usr_1".into(),
        name: "import".into(),
        scopes: vec!["runs:read".into()],
    }
}

fn secret(name: &str, overlap_seconds: Option<f64>) -> NewSecret {
    NewSecret { digest: name.into(), prefix: format!("ask_{name}"), lifetime_seconds: 3_600.0, overlap_seconds }
}

async fn opens(keys: &ApiKeys, name: &str) -> Option<Timestamp> {
    keys.by_secret(name.as_bytes()).await.unwrap().map(|opens| opens.expires_at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_the_log_does_not_know_opens_nothing() {
    let keys = ApiKeys::new(&database().await);
    let first = keys.make(&key("key_1"), &secret("a", None)).await.unwrap();
    assert_eq!((opens(&keys, "a").await, first.same, first.old), (None, true, false));
    assert_eq!(keys.list("tnt_1", "", 10).await.unwrap(), []);
    // Whoever was interrupted comes again, and gets the same.
    assert_eq!(keys.make(&key("key_1"), &secret("a", None)).await.unwrap(), first);
    let other = NewApiKey { scopes: vec!["runs:write".into()], ..key("key_1") };
    assert!(!keys.make(&other, &secret("a", None)).await.unwrap().same);
    let longer = NewSecret { lifetime_seconds: 7_200.0, ..secret("a", None) };
    assert!(!keys.make(&key("key_1"), &longer).await.unwrap().same);
    keys.settle("key_1", "ask_a", 1).await.unwrap();
    assert_eq!(opens(&keys, "a").await, Some(first.expires_at));
    let listed = keys.list("tnt_1", "", 10).await.unwrap();
    assert_eq!(
        (listed.len(), listed[0].prefix.as_str(), listed[0].scopes.as_slice()),
        (1, "ask_a", &["runs:read".to_owned()][..])
    );
    assert_eq!((keys.list("tnt_2", "", 10).await.unwrap(), keys.get("tnt_2", "key_1").await.unwrap()), (vec![], None));
    assert!(!keys.revoke("tnt_2", "key_1").await.unwrap(), "it is not theirs");
    assert!(keys.revoke("tnt_1", "key_1").await.unwrap() && keys.revoke("tnt_1", "key_1").await.unwrap());
    assert_eq!(opens(&keys, "a").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_whose_making_was_interrupted_take_no_room_and_go() {
    let database = database().await;
    let keys = ApiKeys::new(&database);
    for id in ["key_1", "key_2", "key_3"] {
        keys.make(&key(id), &secret(id, None)).await.unwrap();
    }
    let age = async |age: &str| {
        let aged = "UPDATE identity.api_keys SET created_at = now() - $1::interval";
        sqlx::query(aged).bind(age).execute(database.pool()).await.unwrap();
    };
    assert_eq!(keys.count("tnt_1", "key_1").await.unwrap(), 2, "whoever makes them may be at it");
    age("2 hours").await;
    assert_eq!(keys.count("tnt_1", "").await.unwrap(), 0);
    // The log knew of it after all.
    keys.settle("key_2", "ask_key_2", 1).await.unwrap();
    assert_eq!((keys.count("tnt_1", "").await.unwrap(), keys.sweep().await.unwrap()), (1, 0));
    age("31 days").await;
    assert_eq!((keys.sweep().await.unwrap(), keys.sweep().await.unwrap()), (2, 0));
    assert!(opens(&keys, "key_2").await.is_some());
    let left: Vec<String> =
        sqlx::query_scalar("SELECT key FROM identity.api_key_secrets").fetch_all(database.pool()).await.unwrap();
    assert_eq!(left, ["key_2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotations_end_the_same_in_whatever_order_they_are_settled() {
    let keys = ApiKeys::new(&database().await);
    // The secrets a, b and c of one key stand in the log in this order; with b, a goes on for 600 seconds, with c for 60.
    for (n, order) in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].into_iter().enumerate() {
        let id = format!("key_{n}");
        let names = ["a", "b", "c"].map(|name| format!("{name}{n}"));
        let rows = [
            keys.make(&key(&id), &secret(&names[0], None)).await.unwrap(),
            keys.add_secret(&id, &secret(&names[1], Some(600.0))).await.unwrap(),
            keys.add_secret(&id, &secret(&names[2], Some(60.0))).await.unwrap(),
        ];
        for place in order.into_iter().chain(order) {
            keys.settle(&id, &format!("ask_{}", names[place]), place as i64 + 1).await.unwrap();
        }
        let overlap = rows[2].overlap_until;
        let found = [opens(&keys, &names[0]).await, opens(&keys, &names[1]).await, opens(&keys, &names[2]).await];
        assert_eq!(found, [overlap, overlap, Some(rows[2].expires_at)], "settled in order {order:?}");
        let row = keys.get("tnt_1", &id).await.unwrap().unwrap();
        assert_eq!((row.prefix, row.older_until), (format!("ask_{}", names[2]), overlap));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_and_owners_are_found_again() {
    let keys = ApiKeys::new(&database().await);
    for id in ["key_1", "key_2"] {
        keys.make(&key(id), &secret(id, None)).await.unwrap();
        keys.settle(id, &format!("ask_{id}"), 1).await.unwrap();
    }
    let row = keys.get("tnt_1", "key_1").await.unwrap().unwrap();
    assert_eq!((row.last_used_at, keys.count("tnt_1", "key_9").await.unwrap()), (None, 2));
    let later = row.created_at + std::time::Duration::from_secs(60);
    let used = async |at| keys.used(&["key_1".into(), "key_gone".into()], &[at, at]).await.unwrap();
    used(later).await;
    // What was noted late by another instance does not turn the clock back.
    used(row.created_at).await;
    assert_eq!(keys.get("tnt_1", "key_1").await.unwrap().unwrap().last_used_at, Some(later));
    assert_eq!(keys.of_owner("usr_1", "tnt_1", later).await.unwrap().len(), 2);
    let before = row.created_at - std::time::Duration::from_secs(1);
    assert_eq!(keys.of_owner("usr_1", "tnt_1", before).await.unwrap().len(), 0, "made after they left");
    assert_eq!(keys.of_owner("usr_1", "tnt_2", later).await.unwrap().len(), 0);
    keys.revoke("tnt_1", "key_2").await.unwrap();
    assert_eq!(keys.of_owner("usr_1", "tnt_1", later).await.unwrap(), ["key_1"]);
    assert_eq!(keys.sweep().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_maker_of_a_key_was_interrupted_the_keeper_goes_on() {
    let servers = Servers::with_topology().await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let index = Arc::new(PgCommitIndex::new(&servers.database, log.identity().await.unwrap()));
    let registry = Registry::new().with::<Keys>().with::<Tenants>();
    let executor = Executor::start(Arc::clone(&log), index, registry, Options::default());
    let commands: Arc<dyn Commands> = Arc::new(executor.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn(react::run(
        Keeper::new(&servers.database, Arc::clone(&commands)),
        Lease::permanent(Keeper::NAME),
        Arc::clone(&log),
        Arc::new(PgEffects::new(servers.database.clone())),
        commands,
        react::Options::default(),
        stop.clone(),
    ));
    let keys = ApiKeys::new(&servers.database);
    let tell = async |category: &str, id: &str, command: &str, body: serde_json::Value| {
        let to = StreamName::new("tnt_1", category, id).unwrap();
        let by = PrincipalId::new("usr_1").unwrap();
        let request = Request { internal: true, ..Request::new(to, command, body.to_string(), by) };
        executor.execute(request).await.unwrap();
    };
    let issued = |prefix: &str, until: Timestamp| json!({ "name": "import", "prefix": prefix, "scopes": ["runs:read"], "owner": "usr_1", "expires_at": until });
    // Written down and in the log, and then nothing more.
    for id in ["key_1", "key_2"] {
        let row = keys.make(&key(id), &secret(id, None)).await.unwrap();
        tell("api-key", id, "issue", issued(&format!("ask_{id}"), row.expires_at)).await;
        eventually("the secret counts", async || opens(&keys, id).await == Some(row.expires_at)).await;
    }
    let row = keys.add_secret("key_1", &secret("new", Some(600.0))).await.unwrap();
    let overlap = row.overlap_until.unwrap();
    let rotated = json!({ "prefix": "ask_new", "overlap_until": overlap, "expires_at": row.expires_at });
    tell("api-key", "key_1", "rotate", rotated).await;
    eventually("the new one counts", async || opens(&keys, "new").await == Some(row.expires_at)).await;
    assert_eq!(opens(&keys, "key_1").await, Some(overlap));
    tell("api-key", "key_2", "revoke", json!({ "reason": "revoked" })).await;
    eventually("it is revoked", async || opens(&keys, "key_2").await.is_none()).await;

    // Whoever made it is the last owner of a tenant, and erased.
    tell("tenant", "tnt_1", "create", json!({ "name": "Acme", "owner": "usr_1" })).await;
    tell("tenant", "tnt_1", "forget", json!({ "person": "usr_1" })).await;
    eventually("it has ended", async || opens(&keys, "new").await.is_none()).await;
    let stream = StreamName::new("tnt_1", "api-key", "key_1").unwrap();
    let state = executor.inspect::<Keys>(&stream).await.unwrap().state;
    assert_eq!(state, identity::key::State::Revoked);
    stop.cancel();
    running.await.unwrap();
    executor.close().await;
}
