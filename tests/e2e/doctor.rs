//! Servers that are somebody else's: what they do not promise is told, and not promised on.

use std::process::Stdio;

use nats::topology;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use stories::Servers;

use crate::stack::{Said, Stack};

/// A NATS as most people have it: JetStream flushes every two minutes.
struct LateSync {
    stack: embedded::Stack,
    _folder: tempfile::TempDir,
}

impl LateSync {
    async fn start(postgres_url: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("airstream late ").tempdir().unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let options = embedded::Options {
            data_dir: folder.path().join("data"),
            nats_sync_always: false,
            postgres_url: Some(postgres_url.to_owned()),
            ..embedded::Options::default()
        };
        Self { stack: embedded::start(options, |_| {}).await.unwrap(), _folder: folder }
    }

    fn credentials(&self) -> nats::Credentials {
        let nats = self.stack.nats();
        nats::Credentials { user: nats.user.clone().unwrap(), password: nats.password.clone().unwrap() }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let (nats, user) = (self.stack.nats(), self.credentials());
        let system = nats.users["sys"].clone();
        environment(&nats.url, user, system)
    }
}

fn environment(url: &str, user: nats::Credentials, system: String) -> Vec<(&'static str, String)> {
    vec![
        ("AIRSTREAM__NATS__URL", url.to_owned()),
        ("AIRSTREAM__NATS__USER", user.user),
        ("AIRSTREAM__NATS__PASSWORD", user.password),
        ("AIRSTREAM__NATS__SYSTEM_USER", "sys".to_owned()),
        ("AIRSTREAM__NATS__SYSTEM_PASSWORD", system),
    ]
}

/// What an operator configures for programs of tenants.
fn doors(tenants: &embedded::NatsTenants) -> Vec<(&'static str, String)> {
    vec![
        ("AIRSTREAM__NATS__TENANTS_USER", tenants.user.clone()),
        ("AIRSTREAM__NATS__TENANTS_PASSWORD", tenants.password.clone()),
        ("AIRSTREAM__NATS__CALLOUT_USER", tenants.callout_user.clone()),
        ("AIRSTREAM__NATS__CALLOUT_PASSWORD", tenants.callout_password.clone()),
        ("AIRSTREAM__NATS__CALLOUT_SEED", tenants.callout_seed.clone()),
    ]
}

fn doctor(environment: &[(&str, String)]) -> (i32, Vec<Value>) {
    let mut command = Stack::stopped().command();
    let said: Said =
        command.envs(environment.iter().cloned()).args(["doctor", "--json"]).current_dir("/").output().unwrap().into();
    (said.code, said.json()["items"].as_array().unwrap().clone())
}

/// The first finding that is not as it should be, else the first.
fn found(items: &[Value], code: &str) -> (String, String) {
    let of_code = || items.iter().filter(|item| item["code"] == code);
    let item = of_code().find(|item| item["status"] != "ok").or_else(|| of_code().next());
    let item = item.unwrap_or_else(|| panic!("no {code} in {items:#?}"));
    let text = |key: &str| item[key].as_str().unwrap().to_owned();
    assert!(text("status") == "ok" || !text("hint").is_empty(), "{code} says no way out: {item}");
    (text("status"), text("detail"))
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_what_an_external_nats_does_not_promise() {
    let servers = Servers::fresh().await.unwrap();
    let late = LateSync::start(&servers.postgres_url).await;
    let status = |items: &[Value], code: &str| found(items, code).0;

    let (exit, items) = doctor(&late.environment());
    assert_eq!(exit, 6);
    let (durability, detail) = found(&items, "nats.durability");
    assert!(durability == "warn" && detail.contains("every 120 s") && detail.contains("power failure"), "{detail}");
    for code in ["reachable", "version", "max_payload", "jetstream", "streams", "limits", "replicas", "clock"] {
        assert_eq!(status(&items, &format!("nats.{code}")), "ok", "{code}: {items:#?}");
    }

    // Nobody comes in with a key, and somebody could come in with more than that.
    let (tenants, detail) = found(&items, "nats.tenants");
    assert!(tenants == "warn" && detail.contains("the platform's own account"), "{detail}");
    let doors = doors(late.stack.nats().tenants.as_ref().unwrap());
    let without = |part: &str| doors.iter().filter(|(name, _)| !name.contains(part)).cloned().collect::<Vec<_>>();
    let with = |doors: Vec<(&'static str, String)>| doctor(&[late.environment(), doors].concat()).1;
    let (callout, detail) = found(&with(without("CALLOUT")), "nats.callout");
    assert!(callout == "warn" && detail.contains("does not ask us"), "{detail}");
    let made = Stack::stopped().run(&["config", "nats-key", "--json"]).json();
    let seed = made["callout_seed"].as_str().unwrap().to_owned();
    assert_eq!(nats::Signer::new(&seed, "").unwrap().issuer(), made["issuer"].as_str().unwrap());
    let other = [without("SEED"), vec![("AIRSTREAM__NATS__CALLOUT_SEED", seed)]].concat();
    let (callout, detail) = found(&with(other), "nats.callout");
    assert!(callout == "fail" && detail.contains("is the seed of A"), "{detail}");
    let other = [without("TENANTS_PASSWORD"), vec![("AIRSTREAM__NATS__TENANTS_PASSWORD", "guess".to_owned())]].concat();
    assert_eq!(found(&with(other), "nats.tenants").0, "fail");
    let items = with(doors.clone());
    assert_eq!([found(&items, "nats.tenants").0, found(&items, "nats.callout").0], ["ok", "ok"]);

    // Three copies need three servers; and whoever insists is told that it would not start.
    let mut demanding = late.environment();
    demanding.push(("AIRSTREAM__NATS__REPLICAS", "3".to_owned()));
    demanding.push(("AIRSTREAM__NATS__REQUIRE_DURABLE", "true".to_owned()));
    let (exit, items) = doctor(&demanding);
    let (durability, detail) = found(&items, "nats.durability");
    assert!(durability == "fail" && detail.contains("a majority loses power"), "{detail}");
    assert_eq!((exit, status(&items, "nats.replicas").as_str()), (6, "fail"));

    // Without the system account it cannot be known, and that is said.
    let stranger: Vec<_> = late.environment().into_iter().filter(|(name, _)| !name.contains("SYSTEM")).collect();
    let (durability, detail) = found(&doctor(&stranger).1, "nats.durability");
    assert!(durability == "warn" && detail.contains("is not known"), "{detail}");
    let mut pretender = late.environment();
    let user = late.credentials();
    pretender.push(("AIRSTREAM__NATS__SYSTEM_USER", user.user));
    pretender.push(("AIRSTREAM__NATS__SYSTEM_PASSWORD", user.password));
    let (durability, detail) = found(&doctor(&pretender).1, "nats.durability");
    assert!(durability == "warn" && detail.contains("not known"), "{detail}");

    // A log that could forget.
    let connection = nats::Connection::open(&late.stack.nats().url, &late.credentials(), "test").await.unwrap();
    let wanted = topology::streams(1).remove(0);
    let forgetful = async_nats::jetstream::stream::Config { max_age: std::time::Duration::from_secs(60), ..wanted };
    connection.jetstream().create_stream(forgetful).await.unwrap();
    let (streams, detail) = found(&doctor(&late.environment()).1, "nats.streams");
    assert!(streams == "fail" && detail.contains("max_age"), "{detail}");

    let nobody = [("AIRSTREAM__NATS__URL", "nats://127.0.0.1:9".to_owned())];
    let (exit, items) = doctor(&nobody);
    assert_eq!((exit, status(&items, "nats.reachable").as_str()), (6, "fail"));
    late.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_nothing_wrong_with_good_servers_and_a_role_without_rights() {
    let shared = embedded::shared(embedded::SharedOptions::new(env!("CARGO_MANIFEST_DIR"))).await.unwrap();
    let servers = Servers::with_topology().await.unwrap();
    let system = shared.nats().users["sys"].clone();
    let mut good = environment(&servers.nats_url, servers.credentials.clone(), system);
    good.push(("AIRSTREAM__POSTGRES__URL", servers.postgres_url.clone()));
    good.push(("AIRSTREAM__NATS__REQUIRE_DURABLE", "true".to_owned()));
    good.extend(doors(shared.nats().tenants.as_ref().unwrap()));
    let (_, items) = doctor(&good);
    let ours =
        |item: &&Value| ["nats.", "postgres."].iter().any(|room| item["code"].as_str().unwrap().starts_with(room));
    // The Postgres of tests is shared by all of them: who is connected, and whether it syncs, is theirs.
    let of_tests = |item: &&Value| {
        ["postgres.durability", "postgres.synchronous_commit", "postgres.connections"]
            .contains(&item["code"].as_str().unwrap())
    };
    let checked: Vec<_> = items.iter().filter(ours).filter(|item| !of_tests(item)).collect();
    assert!(checked.len() >= 14, "{items:#?}");
    assert!(checked.iter().all(|item| item["status"] == "ok"), "{checked:#?}");

    let role = format!("weak_{}", uuid::Uuid::now_v7().simple());
    let mut connection = PgConnection::connect(&servers.postgres_url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN PASSWORD 'weak'")))
        .execute(&mut connection)
        .await
        .unwrap();
    let (before, _) = servers.postgres_url.split_once("&user=").unwrap();
    let weak = [("AIRSTREAM__POSTGRES__URL", format!("{before}&user={role}&password=weak"))];
    let (exit, items) = doctor(&weak);
    assert_eq!((exit, found(&items, "postgres.rights").0.as_str()), (6, "fail"), "{items:#?}");
    let nobody = [("AIRSTREAM__POSTGRES__URL", "postgres://127.0.0.1:9/x".to_owned())];
    assert_eq!(found(&doctor(&nobody).1, "postgres.reachable").0, "fail");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_insists_on_durability_does_not_begin_without() {
    let servers = Servers::fresh().await.unwrap();
    let late = LateSync::start(&servers.postgres_url).await;
    let stack = Stack::stopped();
    let serve = |durable: bool| {
        let mut command = stack.command();
        command.envs(late.environment()).env("AIRSTREAM__POSTGRES__URL", &servers.postgres_url);
        command.env("AIRSTREAM__NATS__REQUIRE_DURABLE", durable.to_string());
        command.args(["serve", "--roles", "projector"]);
        command
    };
    let said: Said = serve(true).output().unwrap().into();
    assert_eq!(said.code, 1, "{}", said.err);
    assert!(said.err.contains("nats.require_durable") && said.err.contains("sync_interval: always"), "{}", said.err);

    let log = std::fs::File::create(stack.folder().join("serve.log")).unwrap();
    let mut child = serve(false).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let lines = || std::fs::read_to_string(stack.folder().join("serve.log")).unwrap();
    stories::eventually("it runs", async || lines().contains("ready")).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let warned = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or(json!({}));
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|text| text.contains("every 120 s"))
    };
    assert!(lines().lines().any(warned), "{}", lines());
    late.stack.stop().await;
}
