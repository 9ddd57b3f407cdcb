//! People take along what is stored about them, and are forgotten, also when everything is killed meanwhile.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use stories::eventually;

use crate::people::{PASSWORD, People, Person};
use crate::stack::{Http, Stack};

impl Person {
    async fn erase(&self, body: Value, expected: u16) -> Value {
        self.http.json("POST", "/v1/me/erase", Some(body), expected).await
    }

    fn goodbye(&self) -> Value {
        json!({ "confirm": format!("erase {}", self.email) })
    }

    /// The files of an archive, once it is ready.
    async fn archive(&self, export: &str) -> BTreeMap<String, Vec<u8>> {
        let path = format!("/v1/me/exports/{export}");
        eventually("the archive is ready", async || self.http.get(&path).await["state"] == "ready").await;
        let answer = self.http.request("GET", &format!("{path}/download")).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/zip");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert!(answer.headers()["content-disposition"].to_str().unwrap().starts_with("attachment"));
        let mut archive = zip::ZipArchive::new(Cursor::new(answer.bytes().await.unwrap())).unwrap();
        let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        let read = |name: String| {
            let mut content = Vec::new();
            archive.by_name(&name).unwrap().read_to_end(&mut content).unwrap();
            (name, content)
        };
        names.into_iter().map(read).collect()
    }
}

/// Every row of every table that is ours, as text.
async fn all_rows(postgres: &mut PgConnection) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables
         WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')",
    )
    .fetch_all(&mut *postgres)
    .await
    .unwrap();
    assert!(tables.len() > 30, "{tables:?}");
    let mut all = String::new();
    for table in tables {
        let sql = format!("SELECT string_agg(t::text, E'\\n') FROM {table} AS t");
        let rows: Option<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *postgres).await.unwrap();
        all += &format!("{table}\n{}\n", rows.unwrap_or_default());
    }
    all
}

async fn whole_log(stack: &Stack) -> String {
    let (user, password) = embedded::nats_login(&stack.data_dir()).unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password(user, password);
    let url = stack.status()["nats"]["url"].as_str().unwrap().to_owned();
    let context = async_nats::jetstream::new(options.connect(url).await.unwrap());
    let stream = context.get_stream("EVENTS").await.unwrap();
    let mut all = String::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        all += &String::from_utf8_lossy(&stream.get_raw_message(sequence).await.unwrap().payload);
    }
    all
}

async fn sql(stack: &Stack, text: &str) {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(&mut stack.postgres().await).await.unwrap();
}

async fn value<T>(stack: &Stack, text: &str) -> T
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query_scalar(AssertSqlSafe(text.to_owned())).fetch_one(&mut stack.postgres().await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_takes_everything_along_that_is_stored_about_them_and_no_secret() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    ann.http.json("PATCH", "/v1/me", Some(json!({ "name": "Ann Bee", "locale": "de-AT" })), 200).await;
    let acme = ann.create_tenant("Acme").await;
    let inside = ann.within(&acme).await;
    let key = json!({ "name": "nightly", "scopes": ["runs:read"], "expires_in_days": 7 });
    let key = inside.http.json("POST", "/v1/api-keys", Some(key), 201).await;
    let bob = people.join("bob").await;
    let bobs = bob.create_tenant("Bobs").await;
    bob.within(&bobs).await.invite(&people.mailbox, &bobs, &ann.email, "viewer").await;

    let request = || ann.http.request("POST", "/v1/me/export").header("idempotency-key", "once").body("{}");
    let first: Value = request().send().await.unwrap().json().await.unwrap();
    let again: Value = request().send().await.unwrap().json().await.unwrap();
    assert_eq!(first["id"], again["id"], "{first} {again}");
    let export = first["id"].as_str().unwrap();
    bob.http.json("GET", &format!("/v1/me/exports/{export}"), None, 404).await;
    bob.http.json("GET", &format!("/v1/me/exports/{export}/download"), None, 404).await;
    let files = ann.archive(export).await;
    let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
    let profile = json("profile.json");
    let said = [&profile["email"], &profile["username"], &profile["name"], &profile["locale"]];
    assert_eq!(said, ["ann@example.org", "ann", "Ann Bee", "de-AT"]);
    assert_eq!(json("sessions.json")[0]["address"], "127.0.0.1");
    assert_eq!(json("credentials.json")["password"], json!({ "set": true, "number": 1 }));
    assert_eq!(json("memberships.json")[0]["name"], "Acme");
    let invitation = &json("invitations.json")[0];
    assert_eq!((&invitation["tenant_name"], &invitation["role"]), (&json!("Bobs"), &json!("viewer")));
    let keys = json("api-keys.json");
    assert_eq!((&keys[0]["id"], &keys[0]["tenant"]), (&key["id"], &json!(acme)), "{keys}");
    let history = json("history.json");
    let types: Vec<&str> = history.as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected = [
        "person.registered",
        "person.email_confirmed",
        "person.session_opened",
        "person.profile_changed",
        "person.export_requested",
    ];
    assert_eq!(types, expected);
    assert_eq!(history[0]["data"]["email"], "ann@example.org");
    assert_eq!(history[2]["data"]["origin"]["address"], "127.0.0.1");
    assert!(files.contains_key("README.txt") && files.len() == 10, "{:?}", files.keys());
    let everything = files.values().map(|content| String::from_utf8_lossy(content)).collect::<String>();
    for secret in ["$argon2id", key["secret"].as_str().unwrap(), "\"ct\""] {
        assert!(!everything.contains(secret), "{secret}");
    }
    // One mail says that it is there; the archive itself is not readable where it lies.
    let letters = people.mailbox.wait_for(&ann.email, "Your data is ready", 1).await;
    assert!(letters.len() == 1 && letters[0].text.contains(export), "{letters:?}");
    assert!(
        !value::<String>(&stack, "SELECT encode(archive, 'escape') FROM identity.exports")
            .await
            .contains("profile.json")
    );
    for _ in 0..4 {
        ann.http.json("POST", "/v1/me/export", None, 202).await;
    }
    assert_eq!(ann.http.json("POST", "/v1/me/export", None, 429).await["code"], "too_many_exports");
    // A week later it is gone.
    sql(&stack, "UPDATE identity.exports SET expires_at = now()").await;
    ann.http.json("GET", &format!("/v1/me/exports/{export}/download"), None, 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_made_and_told_of_once_wherever_its_making_is_killed() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    people.join("ann").await;
    // It cannot read on, or it cannot tell.
    for (round, lock) in
        ["identity.credentials IN ACCESS EXCLUSIVE MODE", "mail.outbox IN EXCLUSIVE MODE"].iter().enumerate()
    {
        let people = People::of(&stack);
        let ann = people.log_in("ann").await;
        let mut holder = stack.postgres().await;
        let mut held = holder.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("LOCK TABLE {lock}"))).execute(&mut *held).await.unwrap();
        let asked = ann.http.json("POST", "/v1/me/export", None, 202).await;
        let export = asked["id"].as_str().unwrap();
        eventually("it waits for the lock", async || {
            value::<bool>(&stack, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'relation')")
                .await
        })
        .await;
        stack.kill();
        drop(held);
        stack.start();
        let ann = People::of(&stack).log_in("ann").await;
        assert!(ann.archive(export).await.contains_key("history.json"));
        people.mailbox.wait_for(&ann.email, "Your data is ready", round + 1).await;
        let settled = "SELECT count(*) FROM airstream.effects WHERE consumer = 'people' AND state <> 'done'";
        eventually("nothing is left to do", async || value::<i64>(&stack, settled).await == 0).await;
        assert_eq!(people.mailbox.wait_for(&ann.email, "Your data is ready", 1).await.len(), round + 1);
    }
}

/// Somebody with a history: a tenant of their own, one together with others, a key, an archive, an invitation that waits.
struct Lived {
    ann: Person,
    bob: Person,
    solo: String,
    team: String,
    bobs: String,
    secret: String,
}

async fn live(people: &People) -> Lived {
    let ann = people.join("ann").await;
    ann.http.json("PATCH", "/v1/me", Some(json!({ "name": "Ann Bee" })), 200).await;
    let solo = ann.create_tenant("Solo").await;
    let team = ann.create_tenant("Team").await;
    let inside = ann.within(&team).await;
    let bob = people.member(&inside, &team, "bob", "admin").await;
    let key = json!({ "name": "nightly", "scopes": ["tenant:read"], "expires_in_days": 7 });
    let key = inside.http.json("POST", "/v1/api-keys", Some(key), 201).await;
    let export = ann.http.json("POST", "/v1/me/export", None, 202).await;
    ann.archive(export["id"].as_str().unwrap()).await;
    let bobs = bob.create_tenant("Bobs").await;
    bob.within(&bobs).await.invite(&people.mailbox, &bobs, &ann.email, "viewer").await;
    Lived { ann, bob, solo, team, bobs, secret: key["secret"].as_str().unwrap().to_owned() }
}

/// What nobody must find any more.
async fn nothing_is_left(stack: &Stack, lived: &Lived) {
    let needles = ["ann@example.org", "Ann Bee", "Ann.Bee"];
    let rows = all_rows(&mut stack.postgres().await).await;
    let log = whole_log(stack).await;
    assert!(log.contains(&lived.ann.id) && log.contains("person.erased"));
    for needle in needles {
        let hex: String = needle.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(!rows.contains(needle) && !rows.contains(&hex), "{needle} is in a table");
        assert!(!log.contains(needle), "{needle} is in the log");
    }
    let id = &lived.ann.id;
    let keys = format!(
        "SELECT count(*) FROM identity.subject_keys WHERE wrapped IS NULL AND (subject = '{id}' OR subject LIKE 'inv_%')"
    );
    // Theirs, and that of the invitation which went to them.
    assert_eq!(value::<i64>(stack, &keys).await, 2);
    for table in ["sessions", "credentials", "codes", "exports", "handles"] {
        let left = format!("SELECT count(*) FROM identity.{table} WHERE person = '{id}'");
        assert_eq!(value::<i64>(stack, &left).await, 0, "{table}");
    }
    let mails = format!("SELECT count(*) FROM mail.outbox WHERE about = '{id}'");
    assert_eq!(value::<i64>(stack, &mails).await, 0);
}

/// What others see of somebody who is gone, and that everything can be folded again.
async fn others_go_on(stack: &Stack, people: &People, lived: &Lived) {
    for login in ["ann", "ann@example.org"] {
        let answer = people.post("/v1/auth/login", json!({ "login": login, "password": PASSWORD }), 401).await;
        assert_eq!(answer["code"], "invalid_credentials");
    }
    people.post("/v1/auth/refresh", json!({ "refresh_token": lived.ann.refresh_token }), 401).await;
    let url = stack.http().url;
    let key = Http { token: Some(lived.secret.clone()), url: url.clone(), ..lived.bob.http.clone() };
    key.json("GET", &format!("/v1/tenants/{}", lived.team), None, 401).await;
    let bob = people.log_in("bob").await;
    let bob = bob.within(&lived.team).await;
    let members = bob.http.get(&format!("/v1/tenants/{}/members", lived.team)).await;
    assert_eq!(members["items"].as_array().unwrap().len(), 1, "{members}");
    let invites = bob.within(&lived.bobs).await.http.get(&format!("/v1/tenants/{}/invites", lived.bobs)).await;
    assert!(invites["items"].as_array().unwrap().iter().all(|invite| invite["email"].is_null()), "{invites}");
    eventually("the audit shows that they are gone", async || {
        let page = bob.http.get("/v1/audit?action=tenant.created").await;
        page["items"][0]["what"].as_str().unwrap().starts_with("somebody who was erased")
    })
    .await;
    let closed =
        format!("SELECT count(*) FROM tenants_v1.tenants WHERE closed_at IS NOT NULL AND tenant_id = '{}'", lived.solo);
    eventually("the tenant without members is closed", async || value::<i64>(stack, &closed).await == 1).await;
    for arguments in [["projections", "rebuild", "audit"], ["projections", "rebuild", "tenants"]] {
        let said = stack.run(&arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}{}", said.out, said.err);
    }
    let said = stack.run(&["projections", "verify"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert_eq!(bob.http.get("/v1/audit/verify").await["intact"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_forgotten_everywhere_and_their_address_is_free_again() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let lived = live(&people).await;
    let ann = &lived.ann;
    // Not by accident, and not so that others are left alone.
    for confirm in ["", "erase", "erase bob@example.org", "ann@example.org"] {
        assert_eq!(ann.erase(json!({ "confirm": confirm }), 422).await["code"], "not_confirmed");
    }
    let refused = ann.erase(ann.goodbye(), 409).await;
    assert_eq!(refused["code"], "last_owner");
    assert_eq!(refused["errors"].as_array().unwrap().len(), 1, "{refused}");
    assert_eq!(refused["errors"][0]["pointer"], format!("/tenants/{}", lived.team));
    let path = format!("/v1/tenants/{}/members/{}", lived.team, lived.bob.id);
    ann.within(&lived.team).await.http.json("PATCH", &path, Some(json!({ "role": "owner" })), 200).await;
    // Who signed in long ago shows once more who they are.
    sql(&stack, "UPDATE identity.sessions SET auth_time = now() - interval '11 minutes'").await;
    let refreshed = people.post("/v1/auth/refresh", json!({ "refresh_token": ann.refresh_token }), 200).await;
    let ann = Person::of(&people.http, &refreshed);
    assert_eq!(ann.erase(ann.goodbye(), 403).await["code"], "reauthentication_required");
    let wrong = json!({ "confirm": "erase Ann@Example.org", "password": "not it, sorry" });
    assert_eq!(ann.erase(wrong, 403).await["code"], "wrong_password");

    let right = json!({ "confirm": "erase Ann@Example.org", "password": PASSWORD });
    let farewell = ann.erase(right, 200).await;
    assert_eq!((&farewell["status"], &farewell["person"]), (&json!("erased"), &json!(ann.id)), "{farewell}");
    let expected = json!({
        "sessions": 1, "credentials": 1, "recovery_codes": 0, "codes": 1, "devices": 0, "exports": 1, "linked_identities": 0,
        "usernames": 1, "addresses": 1, "memberships": 2, "tenants_closed": 1, "api_keys": 1, "invitations": 1,
    });
    for (kind, count) in expected.as_object().unwrap() {
        assert_eq!(&farewell["erased"][kind], count, "{kind}: {farewell}");
    }
    assert_eq!(ann.http.json("GET", "/v1/me", None, 401).await["code"], "unauthenticated");
    nothing_is_left(&stack, &lived).await;
    others_go_on(&stack, &people, &lived).await;
    // Somebody else, with the same address and name.
    people.register("ann").await;
    let code = people.mailbox.wait_for(&ann.email, "Confirm your e-mail address", 2).await.pop().unwrap().word("aco_");
    people.post("/v1/auth/verify-email", json!({ "code": code }), 200).await;
    let again = people.log_in("ann").await;
    assert_ne!(again.id, ann.id);
    let history = again.http.get("/v1/me/audit").await;
    assert!(history["items"].as_array().unwrap().len() <= 3, "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_comes_to_its_end_wherever_it_is_killed() {
    // Before anything is written down; before keys are destroyed; before rows are removed; before memberships end.
    let locks = ["identity.erasures", "identity.subject_keys", "identity.credentials", "identity.invites"];
    for lock in locks {
        let stack = Stack::up(&[]);
        let people = People::of(&stack);
        let lived = live(&people).await;
        let path = format!("/v1/tenants/{}/members/{}", lived.team, lived.bob.id);
        lived.ann.within(&lived.team).await.http.json("PATCH", &path, Some(json!({ "role": "owner" })), 200).await;
        let mut holder = stack.postgres().await;
        let mut held = holder.begin().await.unwrap();
        // Others may read.
        sqlx::raw_sql(AssertSqlSafe(format!("LOCK TABLE {lock} IN EXCLUSIVE MODE"))).execute(&mut *held).await.unwrap();
        let erasing = {
            let ann = lived.ann.clone();
            let request = ann.http.request("POST", "/v1/me/erase").json(&ann.goodbye());
            tokio::spawn(request.send())
        };
        eventually("it waits for the lock", async || {
            let waits = format!(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'relation' AND relation = '{lock}'::regclass)"
            );
            value::<bool>(&stack, &waits).await
        })
        .await;
        stack.kill();
        drop(held);
        let cut = tokio::time::timeout(Duration::from_secs(30), erasing).await.expect("the connection is cut").unwrap();
        assert!(cut.is_err(), "{lock}: it was answered");
        stack.start();
        let people = People::of(&stack);
        let done = "SELECT count(*) FROM identity.erasures WHERE finished_at IS NOT NULL";
        eventually("it is done", async || value::<i64>(&stack, done).await == 1).await;
        let counts: Value = value(&stack, "SELECT erased FROM identity.erasures").await;
        assert_eq!(
            (&counts["sessions"], &counts["memberships"], &counts["invitations"]),
            (&json!(1), &json!(2), &json!(1)),
            "{lock}: {counts}"
        );
        nothing_is_left(&stack, &lived).await;
        others_go_on(&stack, &people, &lived).await;
    }
}

/// A backup whose tables are older than an erasure and whose log is newer, as when the erasure came while it was made.
fn crossed(older: &Path, newer: &Path) {
    let manifest =
        |path: &Path| serde_json::from_slice::<Value>(&std::fs::read(path.join("manifest.json")).unwrap()).unwrap();
    let (old, mut new) = (manifest(older), manifest(newer));
    for table in old["tables"].as_array().unwrap() {
        let file = table["file"].as_str().unwrap();
        std::fs::copy(older.join(file), newer.join(file)).unwrap();
    }
    new["tables"] = old["tables"].clone();
    let text = serde_json::to_vec_pretty(&new).unwrap();
    std::fs::write(newer.join("manifest.json"), &text).unwrap();
    let pieces = [&new["streams"], &new["tables"]].into_iter().flat_map(|pieces| pieces.as_array().unwrap());
    let mut sums: String = pieces
        .map(|piece| format!("{}  {}\n", piece["sha256"].as_str().unwrap(), piece["file"].as_str().unwrap()))
        .collect();
    let hash: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    sums += &format!("{hash}  manifest.json\n");
    std::fs::write(newer.join("SHA256SUMS"), sums).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_erased_does_not_come_back_with_a_backup() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let lived = live(&people).await;
    let path = format!("/v1/tenants/{}/members/{}", lived.team, lived.bob.id);
    lived.ann.within(&lived.team).await.http.json("PATCH", &path, Some(json!({ "role": "owner" })), 200).await;
    let older = stack.backup("older");
    lived.ann.erase(lived.ann.goodbye(), 200).await;
    let newer = stack.backup("newer");
    for file in std::fs::read_dir(&newer).unwrap() {
        let text = String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()).into_owned();
        assert!(!text.contains("ann@example.org") && !text.contains("Ann Bee"));
    }
    let keys = std::fs::read_to_string(newer.join("identity.subject_keys.copy")).unwrap();
    assert!(keys.lines().any(|line| line.starts_with(&format!("{}\t\\N\t", lived.ann.id))), "{keys}");
    crossed(&older, &newer);
    stack.lose();
    stack.restore(&newer);
    stack.start();
    let people = People::of(&stack);
    let done = "SELECT count(*) FROM identity.erasures WHERE finished_at IS NOT NULL";
    eventually("what was to be done is done again", async || value::<i64>(&stack, done).await == 1).await;
    nothing_is_left(&stack, &lived).await;
    others_go_on(&stack, &people, &lived).await;
    // And who was not erased is still there.
    assert_eq!(people.log_in("bob@example.org").await.id, lived.bob.id);
}
