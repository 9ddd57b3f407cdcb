//! The audit: a chain per tenant that follows from the log, and that nobody changes unnoticed.

use std::sync::Arc;
use std::time::Duration;

use events::tenant::Role;
use identity::key::Keys;
use identity::person::People;
use identity::tenant::Tenants;
use kernel::{CommandId, PrincipalId, StreamName, TenantId};
use nats::JetStreamLog;
use projections::audit::{self, Audit, Finding, Wanted, Wrong};
use projections::commits::PgCommitIndex;
use projections::{Scoped, rebuild, verify, wait_until};
use runtime::lease::Lease;
use runtime::{Commands, CommitIndex, Executor, Log, Options, Registry, Request, consume};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use stories::{Servers, eventually};
use tokio_util::sync::CancellationToken;

const PLATFORM: &str = "airstream";

struct Story {
    servers: Servers,
    log: Arc<dyn Log>,
    executor: Executor,
    stop: CancellationToken,
}

impl Drop for Story {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn sealed(subject: &str) -> Value {
    json!({ "v": 1, "sub": subject, "nonce": "bm9uY2U", "ct": "Y3Q" })
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

async fn begin() -> Story {
    let servers = Servers::with_topology().await.unwrap();
    let log: Arc<dyn Log> = Arc::new(JetStreamLog::new(servers.nats.clone()));
    let index: Arc<dyn CommitIndex> = Arc::new(PgCommitIndex::new(&servers.database, log.identity().await.unwrap()));
    let registry = Registry::new().with::<People>().with::<Tenants>().with::<Keys>();
    let executor = Executor::start(Arc::clone(&log), index, registry, Options::default());
    let stop = CancellationToken::new();
    let (database, lease, read) = (servers.database.clone(), Lease::permanent("audit"), Arc::clone(&log));
    tokio::spawn(projections::run::<Audit>(database, lease, read, consume::Options::default(), stop.clone()));
    Story { servers, log, executor, stop }
}

impl Story {
    async fn ask(&self, stream: (&str, &str, &str), command: &str, by: &str, body: Value) {
        let stream = StreamName::new(stream.0, stream.1, stream.2).unwrap();
        let request = Request {
            principal: PrincipalId::new(by).unwrap(),
            ..Request::internal(stream, command, body.to_string()).with_id(CommandId::new(&fresh()).unwrap())
        };
        self.executor.execute(request).await.unwrap();
    }

    async fn person(&self, person: &str, command: &str, body: Value) {
        self.ask((PLATFORM, "person", person), command, person, body).await;
    }

    async fn register(&self, person: &str) {
        self.person(person, "register", json!({ "person": { "email": sealed(person), "method": "password" } })).await;
    }

    async fn sign_in(&self, person: &str, session: &str) {
        let body = json!({ "session": session, "method": "password", "origin": sealed(person) });
        self.person(person, "open-session", body).await;
    }

    async fn found(&self, name: &str, owner: &str) {
        self.ask((name, "tenant", name), "create", owner, json!({ "name": name, "owner": owner })).await;
    }

    async fn join(&self, name: &str, owner: &str, person: &str) {
        let invite = fresh();
        let body = json!({
            "invite": invite, "email": sealed(&invite), "role": Role::Member, "by": owner,
        });
        self.ask((name, "tenant", name), "invite", owner, body).await;
        self.ask((name, "tenant", name), "accept", person, json!({ "invite": invite, "person": person })).await;
    }

    async fn caught_up(&self) {
        let head = self.log.head().await.unwrap();
        wait_until::<Audit>(self.servers.database.pool(), head, Duration::from_secs(20)).await.expect("it catches up");
    }

    async fn actions(&self, name: &str) -> Vec<String> {
        let rows = audit::list(self.servers.database.pool(), &tenant(name), &Wanted::default(), 500).await.unwrap();
        rows.into_iter().rev().map(|row| row.entry.action).collect()
    }

    async fn sql(&self, text: &str) -> u64 {
        let done = sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(self.servers.database.pool()).await;
        done.unwrap().rows_affected()
    }

    async fn verified(&self, name: &str) -> audit::Verified {
        audit::verify(&self.servers.database, &self.log, &tenant(name)).await.unwrap()
    }

    /// What is found wrong with a tenant's audit after a statement that changes one row; then it is as it was.
    async fn wrongs_after(&self, name: &str, statement: &str) -> Vec<(u64, Wrong)> {
        let copy = "DROP TABLE IF EXISTS public.kept; CREATE TABLE public.kept AS TABLE audit_v1.entries";
        self.sql(copy).await;
        assert_eq!(self.sql(statement).await, 1, "{statement}");
        let verified = self.verified(name).await;
        assert!(!verified.intact);
        self.sql("DELETE FROM audit_v1.entries; INSERT INTO audit_v1.entries TABLE public.kept").await;
        assert!(self.verified(name).await.intact);
        let wrong = |finding: &Finding| (finding.position.sequence(), finding.wrong);
        verified.findings.iter().map(wrong).collect()
    }
}

fn fresh() -> String {
    runtime::clock::fresh_id("x_")
}

/// Two tenants; somebody belongs to both, and leaves one.
async fn lived() -> Story {
    let story = begin().await;
    for person in ["usr_ann", "usr_bob"] {
        story.register(person).await;
    }
    story.sign_in("usr_bob", "ses_before").await;
    story.found("acme", "usr_ann").await;
    story.found("other", "usr_bob").await;
    story.join("acme", "usr_ann", "usr_bob").await;
    story.sign_in("usr_bob", "ses_during").await;
    let body = json!({ "person": "usr_bob" });
    story.ask(("acme", "tenant", "acme"), "remove", "usr_ann", body).await;
    story.sign_in("usr_bob", "ses_after").await;
    story.caught_up().await;
    story
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_what_happened_in_it_and_what_its_members_did_while_they_were_members() {
    let story = lived().await;
    let expected = [
        "tenant.created",
        "tenant.member_invited",
        "tenant.member_joined",
        "person.session_opened",
        "tenant.member_left",
    ];
    assert_eq!(story.actions("acme").await, expected);
    let other = ["tenant.created", "person.session_opened", "person.session_opened"];
    assert_eq!(story.actions("other").await, other);
    // Neither the session nor its origin is the tenant's business.
    let wanted = Wanted { action: Some("person.session_opened".into()), ..Wanted::default() };
    let pool = story.servers.database.pool();
    let rows = audit::list(pool, &tenant("acme"), &wanted, 10).await.unwrap();
    assert_eq!(rows[0].entry.data, json!({ "method": "password" }));
    let wanted = Wanted { actor: Some("usr_bob".into()), before: Some(rows[0].cursor()), ..Wanted::default() };
    let rows = audit::list(pool, &tenant("acme"), &wanted, 10).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.entry.action.as_str()).collect::<Vec<_>>(), ["tenant.member_joined"]);
    let rows = audit::of_person(pool, "usr_bob", None, 10).await.unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0].entry.data["origin"], sealed("usr_bob"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_somebody_does_to_a_row_by_hand_is_found() {
    let story = lived().await;
    let verified = story.verified("acme").await;
    assert!(verified.intact && verified.entries == 5, "{verified:?}");
    let head: String = sqlx::query_scalar(
        "SELECT encode(hash, 'hex') FROM audit_v1.entries WHERE tenant_id = 'acme' ORDER BY position DESC LIMIT 1",
    )
    .fetch_one(story.servers.database.pool())
    .await
    .unwrap();
    assert_eq!(verified.head, head);
    let places: Vec<i64> =
        sqlx::query_scalar("SELECT position FROM audit_v1.entries WHERE tenant_id = 'acme' ORDER BY position")
            .fetch_all(story.servers.database.pool())
            .await
            .unwrap();
    let at = |n: usize| places[n] as u64;
    let row = |n: usize| format!("WHERE tenant_id = 'acme' AND position = {}", places[n]);

    let changed =
        story.wrongs_after("acme", &format!("UPDATE audit_v1.entries SET actor = 'usr_eve' {}", row(2))).await;
    assert_eq!(changed, [(at(2), Wrong::Broken), (at(2), Wrong::Changed)]);
    let removed = story.wrongs_after("acme", &format!("DELETE FROM audit_v1.entries {}", row(2))).await;
    assert_eq!(removed, [(at(2), Wrong::Missing), (at(3), Wrong::Broken)]);
    // The last one is missed by the log only.
    let last = story.wrongs_after("acme", &format!("DELETE FROM audit_v1.entries {}", row(4))).await;
    assert_eq!(last, [(at(4), Wrong::Missing)]);
    let invented = "INSERT INTO audit_v1.entries SELECT tenant_id, position, 7, at, actor, action, category, subject,
        correlation, data, hash FROM audit_v1.entries "
        .to_owned()
        + &row(4);
    assert_eq!(story.wrongs_after("acme", &invented).await, [(at(4), Wrong::Broken), (at(4), Wrong::Invented)]);
    // Whoever also makes the chain fit again has still the log against them.
    let other = story.verified("other").await;
    assert!(other.intact && other.entries == 3 && other.head != verified.head);
    assert!(story.verified(PLATFORM).await.intact);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_gives_the_same_chain_and_the_same_walls() {
    let story = lived().await;
    let before = story.verified("acme").await;
    let pool = story.servers.database.pool();
    let chain =
        "SELECT string_agg(encode(hash, 'hex'), ' ' ORDER BY tenant_id, position, number) FROM audit_v1.entries";
    let live: String = sqlx::query_scalar(chain).fetch_one(pool).await.unwrap();
    let walls = "
        SELECT string_agg(concat_ws(' ', tablename, policyname, permissive, roles, cmd, qual, with_check), ';' ORDER BY tablename, policyname)
            || (SELECT string_agg(concat_ws(' ', relname, relrowsecurity, relforcerowsecurity, relacl::text), ';' ORDER BY relname)
                FROM pg_class WHERE relnamespace = 'audit_v1'::regnamespace AND relkind = 'r')
            || (SELECT nspacl::text FROM pg_namespace WHERE nspname = 'audit_v1')
        FROM pg_policies WHERE schemaname = 'audit_v1'";
    let guarded: String = sqlx::query_scalar(walls).fetch_one(pool).await.unwrap();
    assert!(guarded.contains("airstream_tenant") && guarded.contains("entries t t"), "{guarded}");
    for round in 0..2 {
        let fold = rebuild::<Audit>(&story.servers.database, &story.log, |_| {}).await.unwrap();
        assert!(fold.differences.is_empty(), "{round}: {:?}", fold.differences);
        assert_eq!(sqlx::query_scalar::<_, String>(chain).fetch_one(pool).await.unwrap(), live);
        assert_eq!(sqlx::query_scalar::<_, String>(walls).fetch_one(pool).await.unwrap(), guarded);
    }
    assert_eq!(story.verified("acme").await, before);
    assert_eq!(story.actions("acme").await.len(), 5, "a tenant cannot read its audit any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_parked_and_comes_late_stands_where_it_belongs() {
    let story = begin().await;
    story.register("usr_ann").await;
    story.register("usr_bob").await;
    story.found("acme", "usr_ann").await;
    story.caught_up().await;
    // A defect of ours: whatever the projector does with this tenant fails, until somebody mends it.
    let refuse = "
        CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE check_violation USING MESSAGE = 'a defect'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON audit_v1.entries FOR EACH ROW WHEN (new.category = 'tenant')
            EXECUTE FUNCTION public.refuse()";
    story.sql(refuse).await;
    story.join("acme", "usr_ann", "usr_bob").await;
    story.sign_in("usr_bob", "ses_1").await;
    story.caught_up().await;
    assert_eq!(story.actions("acme").await, ["tenant.created"]);
    let verified = story.verified("acme").await;
    assert!(verified.intact, "what is parked is not missing: {verified:?}");
    story.sql("DROP FUNCTION public.refuse CASCADE; UPDATE airstream.parked SET released = true").await;
    let expected = ["tenant.created", "tenant.member_invited", "tenant.member_joined", "person.session_opened"];
    eventually("the parked commits are handled", async || story.actions("acme").await == expected).await;
    let verified = story.verified("acme").await;
    assert!(verified.intact, "{verified:?}");
    let fold = verify::<Audit>(&story.servers.database, &story.log, |_| {}).await.unwrap();
    assert!(fold.differences.is_empty(), "{:?}", fold.differences);
}

/// The same server and database as another user.
fn as_user(url: &str, user: &str) -> String {
    let parts = url.split('&').map(|part| match part.split_once('=') {
        Some(("user", _)) => format!("user={user}"),
        Some(("password", _)) => "password=secret".to_owned(),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("&")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_forgets_its_tenant_sees_one_tenant_or_nothing() {
    let story = lived().await;
    let pool = story.servers.database.pool();
    let key = "INSERT INTO identity.api_keys (key, tenant, owner, name, scopes)
        SELECT 'key_' || name, name, 'usr_ann', 'x', '{}' FROM unnest('{acme,other}'::text[]) AS name";
    story.sql(key).await;
    let forgetful =
        ["SELECT DISTINCT tenant_id FROM audit_v1.entries", "SELECT DISTINCT tenant FROM identity.api_keys"];
    for query in forgetful {
        let mut scoped = Scoped::to(pool, &tenant("acme")).await.unwrap();
        let seen: Vec<String> = sqlx::query_scalar(query).fetch_all(scoped.connection()).await.unwrap();
        assert_eq!(seen, ["acme"], "{query}");
        drop(scoped);
        // The role alone, with a setting that an earlier transaction has left empty.
        let mut unsaid = pool.begin().await.unwrap();
        sqlx::raw_sql("SET LOCAL ROLE airstream_tenant").execute(&mut *unsaid).await.unwrap();
        let seen: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut *unsaid).await.unwrap();
        assert_eq!(seen, Vec::<String>::new(), "{query}");
    }
    // Neither does it write what is another's, nor what nobody may change.
    let cases = [
        ("UPDATE identity.api_keys SET tenant = 'other'", "42501"),
        (
            "INSERT INTO identity.api_keys (key, tenant, owner, name, scopes)
            VALUES ('key_x', 'other', 'x', 'x', '{}')",
            "42501",
        ),
        ("DELETE FROM audit_v1.entries", "42501"),
        ("SELECT * FROM identity.credentials", "42501"),
        ("SELECT * FROM audit_v1.spans", "42501"),
        ("SELECT * FROM identity.invites", "42501"),
    ];
    for (statement, code) in cases {
        let mut scoped = Scoped::to(pool, &tenant("acme")).await.unwrap();
        let refused = sqlx::raw_sql(statement).execute(scoped.connection()).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), code, "{statement}: {refused}");
    }
    let touched = "UPDATE identity.api_keys SET name = 'mine'";
    let mut scoped = Scoped::to(pool, &tenant("acme")).await.unwrap();
    assert_eq!(sqlx::raw_sql(touched).execute(scoped.connection()).await.unwrap().rows_affected(), 1);
    scoped.finish().await.unwrap();
    // What the next one takes from the pool is not scoped.
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM identity.api_keys").fetch_one(pool).await.unwrap();
    assert_eq!(all, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_no_superuser_needs_the_role_and_sees_nothing_that_it_does_not_ask_for() {
    let servers = Servers::fresh().await.unwrap();
    let user = format!("plain_{}", &fresh()[2..]);
    let name = format!("db_{user}");
    let prepare = format!("CREATE ROLE {user} LOGIN NOSUPERUSER PASSWORD 'secret'; ");
    let run = async |sql: String| sqlx::raw_sql(AssertSqlSafe(sql)).execute(servers.database.pool()).await.unwrap();
    run(prepare).await;
    run(format!("CREATE DATABASE {name} OWNER {user}")).await;
    let (before, rest) = servers.postgres_url.split_once('?').unwrap();
    let url = format!("{}/{name}?{rest}", before.rsplit_once('/').unwrap().0);
    let database = projections::Database::open(&as_user(&url, &user), 2).await.unwrap();
    let refused = projections::migrate(database.pool()).await.unwrap_err().to_string();
    assert!(
        refused.contains(&format!("CREATE ROLE airstream_tenant NOLOGIN; GRANT airstream_tenant TO {user};")),
        "{refused}"
    );
    // As it says; the role is there already. Who failed holds the lock of migrations for as long as they are connected.
    database.close().await;
    run(format!("GRANT airstream_tenant TO {user}")).await;
    let database = projections::Database::open(&as_user(&url, &user), 2).await.unwrap();
    projections::migrate(database.pool()).await.unwrap();

    let key = "INSERT INTO identity.api_keys (key, tenant, owner, name, scopes)
        VALUES ('key_1', 'acme', 'usr_ann', 'x', '{}')";
    sqlx::raw_sql(key).execute(database.pool()).await.unwrap();
    let count = "SELECT count(*) FROM identity.api_keys";
    let seen = async |tenant_id: &str| {
        let mut scoped = Scoped::to(database.pool(), &tenant(tenant_id)).await.unwrap();
        sqlx::query_scalar::<_, i64>(count).fetch_one(scoped.connection()).await.unwrap()
    };
    assert_eq!((seen("acme").await, seen("other").await), (1, 0));
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(database.pool()).await.unwrap(), 1);
    // A script that connects as the owner and says nothing.
    let mut plain = <sqlx::PgConnection as sqlx::Connection>::connect(&as_user(&url, &user)).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut plain).await.unwrap(), 0);
}
