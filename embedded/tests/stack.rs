//! Real servers, started and stopped for real. Only the fetched packages are shared between these tests.

// In a test a panic is the report, and the timings are worth seeing.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "stack/cluster.rs"]
mod cluster;

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use embedded::{
    Child, NatsAccount, NatsUser, Options, Progress, Signal, Source, Stack, StartError, Status, doctor, start,
};
use futures::StreamExt;
use sqlx::{Connection, PgConnection};

/// A folder the servers' user can enter, removed at the end.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("embedded test ").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn options(data_dir: &Path) -> Options {
    Options { data_dir: data_dir.to_owned(), postgres_fsync: false, ..Options::default() }
}

async fn started(options: Options) -> Stack {
    start(options, |_| {}).await.unwrap_or_else(|error| panic!("{error} ({error:?})"))
}

async fn sql(stack: &Stack) -> PgConnection {
    PgConnection::connect(&stack.postgres().url).await.unwrap()
}

async fn nats(stack: &Stack) -> async_nats::Client {
    let address = stack.nats();
    let (user, password) = (address.user.clone().unwrap(), address.password.clone().unwrap());
    async_nats::ConnectOptions::with_user_and_password(user, password).connect(&address.url).await.unwrap()
}

/// Waits for a state, not for a time.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn next_subject(messages: &mut async_nats::Subscriber) -> String {
    let next = tokio::time::timeout(Duration::from_secs(30), messages.next()).await;
    next.unwrap().unwrap().subject.to_string()
}

fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_second_start_finds_data_and_ports_of_the_first() {
    let folder = folder();
    // As durable as in production, for the timings.
    let options = |data_dir| Options { postgres_fsync: true, ..options(data_dir) };
    let cold = Instant::now();
    let stack = started(options(folder.path())).await;
    let cold = cold.elapsed();
    let before = stack.nats().clone();
    sqlx::query("CREATE TABLE kept (n int)").execute(&mut sql(&stack).await).await.unwrap();
    let jetstream = async_nats::jetstream::new(nats(&stack).await);
    let stream = async_nats::jetstream::stream::Config {
        name: "KEPT".to_owned(),
        subjects: vec!["kept".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(stream).await.unwrap();
    jetstream.publish("kept", "x".into()).await.unwrap().await.unwrap();
    let report = stack.stop().await;
    assert!(report.was_graceful() && report.children.len() == 2, "{report:?}");

    let warm = Instant::now();
    let stack = started(options(folder.path())).await;
    let warm = warm.elapsed();
    assert_eq!(*stack.nats(), before);
    sqlx::query("INSERT INTO kept VALUES (1)").execute(&mut sql(&stack).await).await.unwrap();
    let jetstream = async_nats::jetstream::new(nats(&stack).await);
    let mut stream = jetstream.get_stream("KEPT").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
    let stopped = stack.stop().await;
    println!("cold {cold:?}, warm {warm:?}, stop {:?}", stopped.children);
}

#[tokio::test]
async fn a_held_folder_names_its_holder() {
    let folder = folder();
    let stack = started(options(folder.path())).await;
    let refused = start(options(folder.path()), |_| {}).await.err().unwrap();
    let StartError::AlreadyRunning { pid, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(refused.to_string().contains("already running"), "{refused}");
    let lock = doctor(&options(folder.path())).into_iter().find(|finding| finding.name == "lock").unwrap();
    assert_eq!(lock.status, Status::Warn, "{lock:?}");
    stack.stop().await;
    started(options(folder.path())).await.stop().await;
}

#[tokio::test]
async fn two_stacks_do_not_meet() {
    let (one, two) = (folder(), folder());
    let (one, two) = tokio::join!(started(options(one.path())), started(options(two.path())));
    assert_ne!(one.nats().url, two.nats().url);
    assert_ne!(one.postgres().password, two.postgres().password);
    sqlx::query("CREATE TABLE mine (n int)").execute(&mut sql(&one).await).await.unwrap();
    assert!(sqlx::query("SELECT * FROM mine").execute(&mut sql(&two).await).await.is_err());
    one.stop().await;
    sqlx::query("SELECT 1").execute(&mut sql(&two).await).await.unwrap();
    nats(&two).await.flush().await.unwrap();
    two.stop().await;
}

#[tokio::test]
async fn a_killed_server_comes_back_at_the_same_address() {
    let folder = folder();
    let stack = started(options(folder.path())).await;
    let nats_before = nats(&stack).await;
    for child in [Child::Nats, Child::Postgres] {
        let pid = stack.child_pid(child).unwrap();
        assert!(stack.kill_child(child, Signal::SIGKILL).await);
        until("it is back", async || (stack.restarts(child) == 1).then_some(())).await;
        assert_ne!(stack.child_pid(child), Some(pid));
        assert!(!alive(pid));
    }
    sqlx::query("SELECT 1").execute(&mut sql(&stack).await).await.unwrap();
    nats(&stack).await.flush().await.unwrap();
    until("the old client has reconnected", async || {
        (nats_before.connection_state() == async_nats::connection::State::Connected).then_some(())
    })
    .await;
    stack.stop().await;
}

#[tokio::test]
async fn a_busy_backend_does_not_keep_postgres_from_coming_back() {
    let folder = folder();
    let stack = started(options(folder.path())).await;
    let mut busy = sql(&stack).await;
    // Never looks whether the main process is still there.
    let query = tokio::spawn(async move {
        let endless = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b";
        sqlx::query(endless).execute(&mut busy).await
    });
    let mut watching = sql(&stack).await;
    until("the query runs", async || {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series%' AND pid <> pg_backend_pid()";
        let (count,): (i64,) = sqlx::query_as(running).fetch_one(&mut watching).await.unwrap();
        (count == 1).then_some(())
    })
    .await;
    stack.kill_child(Child::Postgres, Signal::SIGKILL).await;
    until("it is back", async || (stack.restarts(Child::Postgres) == 1).then_some(())).await;
    assert!(query.await.unwrap().is_err());
    sqlx::query("SELECT 1").execute(&mut sql(&stack).await).await.unwrap();
    stack.stop().await;
}

#[tokio::test]
async fn a_server_that_keeps_dying_is_given_up() {
    let folder = folder();
    let stack = started(options(folder.path())).await;
    let failed = async {
        let failure = stack.failed().await;
        assert_eq!(failure.child, Child::Nats);
        assert!(failure.to_string().contains("4 times within a minute"), "{failure}");
    };
    let killing = async {
        for round in 0..4 {
            until("it runs", async || (stack.restarts(Child::Nats) == round).then_some(())).await;
            assert!(stack.kill_child(Child::Nats, Signal::SIGKILL).await);
        }
    };
    tokio::join!(failed, killing);
    stack.stop().await;
}

#[tokio::test]
async fn a_port_taken_while_the_server_was_down_is_named() {
    let folder = folder();
    let stack = started(options(folder.path())).await;
    let port: u16 = stack.nats().url.rsplit_once(':').unwrap().1.parse().unwrap();
    // Succeeds in the moment between the death and the restart.
    let thief = std::thread::spawn(move || {
        loop {
            if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
                return listener;
            }
            std::thread::yield_now();
        }
    });
    stack.kill_child(Child::Nats, Signal::SIGKILL).await;
    let failure = stack.failed().await;
    assert!(failure.reason.contains(&format!("port {port} on 127.0.0.1 is taken")), "{failure}");
    drop(thief.join().unwrap());
    stack.stop().await;
}

#[tokio::test]
async fn stop_leaves_no_process_and_an_ephemeral_one_no_folder() {
    let stack = started(Options { ephemeral: true, ..Options::default() }).await;
    let data_dir = stack.data_dir().to_owned();
    let pids: Vec<u32> = [Child::Nats, Child::Postgres].map(|child| stack.child_pid(child).unwrap()).to_vec();
    assert!(data_dir.exists() && pids.iter().all(|pid| alive(*pid)));
    // A paused server cannot hear that it is to end.
    stack.kill_child(Child::Nats, Signal::SIGSTOP).await;
    let report = stack.stop().await;
    assert!(report.was_graceful(), "{report:?}");
    assert!(!data_dir.exists());
    assert!(!pids.iter().any(|pid| alive(*pid)));
}

#[test]
fn the_servers_outlive_the_runtime_that_started_them() {
    let folder = folder();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = options(folder.path());
    let stack = std::thread::spawn(move || runtime().block_on(started(options))).join().unwrap();
    // A server whose parent thread has ended would be on its way out now; and its end would be noticed.
    runtime().block_on(async {
        assert!(stack.kill_child(Child::Postgres, Signal::SIGKILL).await);
        until("it is back", async || (stack.restarts(Child::Postgres) == 1).then_some(())).await;
        sqlx::query("SELECT 1").execute(&mut sql(&stack).await).await.unwrap();
        nats(&stack).await.flush().await.unwrap();
        assert_eq!(stack.restarts(Child::Nats), 0);
        stack.stop().await;
    });
}

#[tokio::test]
async fn dropping_a_stack_ends_it() {
    let folder = folder();
    let stack = started(options(folder.path())).await;
    let pids = [Child::Nats, Child::Postgres].map(|child| stack.child_pid(child).unwrap());
    drop(stack);
    assert!(!pids.into_iter().any(alive));
    started(options(folder.path())).await.stop().await;
}

#[tokio::test]
async fn users_may_do_what_is_listed_and_nothing_else() {
    let folder = folder();
    let user = NatsUser {
        account: NatsAccount::Platform,
        name: "gateway".to_owned(),
        publish: vec!["cmd.>".to_owned()],
        subscribe: vec!["_INBOX.>".to_owned()],
    };
    let stack = started(Options { nats_users: vec![user], accounts: 2, ..options(folder.path()) }).await;
    let violations: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = violations.clone();
    let password = stack.nats().users["gateway"].clone();
    let client = async_nats::ConnectOptions::with_user_and_password("gateway".to_owned(), password)
        .event_callback(move |event| {
            seen.lock().unwrap().push(event.to_string());
            async {}
        })
        .connect(&stack.nats().url)
        .await
        .unwrap();
    let everything = nats(&stack).await;
    let mut all = everything.subscribe(">").await.unwrap();
    // The server handles one client in order, two clients in any order.
    everything.publish("subscribed", "".into()).await.unwrap();
    assert_eq!(next_subject(&mut all).await, "subscribed");
    client.publish("cmd.x", "allowed".into()).await.unwrap();
    client.publish("ev.x", "refused".into()).await.unwrap();
    client.flush().await.unwrap();
    until("the refusal", async || {
        violations.lock().unwrap().iter().any(|event| event.to_lowercase().contains("permissions")).then_some(())
    })
    .await;
    assert_eq!(next_subject(&mut all).await, "cmd.x");
    let wrong = async_nats::ConnectOptions::with_user_and_password("gateway".to_owned(), "x".to_owned());
    assert!(wrong.connect(&stack.nats().url).await.is_err());
    stack.stop().await;
}

#[tokio::test]
async fn a_damaged_cache_file_is_noticed_and_fetched_again() {
    let folder = folder();
    let cache = folder.path().join("cache");
    let with_cache = || Options { cache_dir: cache.clone(), ..options(&folder.path().join("data dir")) };
    started(with_cache()).await.stop().await;
    let binary = find_file(&cache, "nats-server").unwrap();
    let mut bytes = std::fs::read(&binary).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&binary, bytes).unwrap();
    let broken = doctor(&with_cache()).into_iter().find(|finding| finding.name == "nats-server").unwrap();
    assert_eq!(broken.status, Status::Warn);
    assert!(broken.detail.contains("wrong SHA-256"), "{broken:?}");
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let hear = told.clone();
    let stack = start(with_cache(), move |progress| hear.lock().unwrap().push(format!("{progress:?}"))).await.unwrap();
    let told = told.lock().unwrap().join("\n");
    assert!(told.contains("damaged") && told.contains("Fetching"), "{told}");
    stack.stop().await;
}

fn find_file(root: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(root)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find_map(|path| if path.is_dir() { find_file(&path, name) } else { path.ends_with(name).then_some(path) })
}

#[tokio::test]
async fn another_major_version_keeps_the_old_cluster() {
    let folder = folder();
    let data = folder.path().join("data");
    started(options(&data)).await.stop().await;
    // As if version 14 had written it.
    std::fs::write(data.join("pg/PG_VERSION"), "14\n").unwrap();
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let hear = told.clone();
    let stack = start(options(&data), move |progress| {
        if let Progress::Notice { text, .. } = progress {
            hear.lock().unwrap().push(text.clone());
        }
    })
    .await
    .unwrap();
    assert!(told.lock().unwrap().iter().any(|text| text.contains("PostgreSQL 14")), "{told:?}");
    assert!(data.join("pg-14-kept-1/base").is_dir());
    sqlx::query("SELECT 1").execute(&mut sql(&stack).await).await.unwrap();
    stack.stop().await;
}

#[tokio::test]
async fn lost_secrets_are_made_anew() {
    let folder = folder();
    let stack = started(options(folder.path())).await;
    let before = stack.postgres().password.clone();
    sqlx::query("CREATE TABLE kept (n int)").execute(&mut sql(&stack).await).await.unwrap();
    stack.stop().await;
    std::fs::remove_file(folder.path().join("secrets.json")).unwrap();
    let stack = started(options(folder.path())).await;
    assert_ne!(stack.postgres().password, before);
    sqlx::query("SELECT * FROM kept").execute(&mut sql(&stack).await).await.unwrap();
    stack.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_replaced_at_the_next_start() {
    let folder = folder();
    let stack = started(options(folder.path())).await;
    let url = stack.nats().url.clone();
    stack.stop().await;
    let port: u16 = url.rsplit_once(':').unwrap().1.parse().unwrap();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let stack = started(options(folder.path())).await;
    assert_ne!(stack.nats().url, url);
    nats(&stack).await.flush().await.unwrap();
    stack.stop().await;
}

#[tokio::test]
async fn a_long_path_gets_a_short_socket() {
    let folder = folder();
    let data = folder.path().join("a".repeat(60)).join("b".repeat(60));
    let stack = started(options(&data)).await;
    sqlx::query("SELECT 1").execute(&mut sql(&stack).await).await.unwrap();
    let socket_dir = stack.postgres().socket_dir.clone().unwrap();
    assert!(!socket_dir.starts_with(folder.path()));
    stack.stop().await;
    assert!(!socket_dir.exists());
}

#[tokio::test]
async fn what_cannot_work_says_what_to_do() {
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    // Root may write everywhere, so a file stands in the way.
    let refused = start(options(&file.join("data")), |_| {}).await.err().unwrap();
    assert!(matches!(refused, StartError::NotWritable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("choose another folder"), "{refused}");

    let wrong = Options { nats_binary: Some("/bin/true".into()), ..options(&folder.path().join("a")) };
    let refused = start(wrong, |_| {}).await.err().unwrap();
    assert!(refused.to_string().contains("/bin/true does not work as nats-server"), "{refused}");

    if nix_is_root() {
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        let refused = start(options(&closed.join("data")), |_| {}).await.err().unwrap();
        assert!(refused.to_string().contains("chmod o+x"), "{refused}");
        let finding = doctor(&options(&closed.join("data")));
        assert!(finding.iter().any(|finding| finding.status == Status::Fail && finding.hint.contains("chmod")));
    }
}

fn nix_is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

#[tokio::test]
async fn somebody_elses_servers_are_left_alone() {
    let folder = folder();
    let external = Options {
        nats_url: Some("nats://nowhere:4222".to_owned()),
        postgres_url: Some("postgres://nowhere/db".to_owned()),
        ..options(folder.path())
    };
    let sources: Arc<Mutex<Vec<Source>>> = Arc::default();
    let hear = sources.clone();
    let stack = start(external, move |progress| {
        if let Progress::Chose { source, .. } = progress {
            hear.lock().unwrap().push(*source);
        }
    })
    .await
    .unwrap();
    assert_eq!(*sources.lock().unwrap(), [Source::External, Source::External]);
    assert_eq!(stack.nats().url, "nats://nowhere:4222");
    assert!(stack.child_pid(Child::Nats).is_none());
    assert!(stack.stop().await.children.is_empty());
}

#[tokio::test]
async fn shared_accounts_are_empty_and_apart() {
    let began = Instant::now();
    let shared = embedded::shared(embedded::SharedOptions::new(env!("CARGO_MANIFEST_DIR"))).await.unwrap();
    println!("shared pair after {:?} in {}", began.elapsed(), shared.stack().data_dir().display());
    let mut names = BTreeSet::new();
    for _ in 0..2 {
        let account = shared.account().unwrap();
        let client = async_nats::ConnectOptions::with_user_and_password(account.user.clone(), account.password.clone())
            .connect(&account.url)
            .await
            .unwrap();
        let jetstream = async_nats::jetstream::new(client);
        let stream = async_nats::jetstream::stream::Config { name: "EVENTS".to_owned(), ..Default::default() };
        let mut created = jetstream.create_stream(stream).await.unwrap();
        assert_eq!(created.info().await.unwrap().state.messages, 0);
        jetstream.publish("EVENTS", "x".into()).await.unwrap().await.unwrap();
        names.insert(account.account);
    }
    assert_eq!(names.len(), 2);
    let mut admin = PgConnection::connect(&shared.postgres().url).await.unwrap();
    sqlx::query("SELECT 1").execute(&mut admin).await.unwrap();
}

/// Not a test: the process that [`children_die_with_their_parent`] kills. Also good for trying something by hand:
/// `EMBEDDED_TEST_PARENT=<folder> <test binary> --exact parent_to_be_killed --nocapture`.
#[tokio::test]
async fn parent_to_be_killed() {
    let Some(data_dir) = std::env::var_os("EMBEDDED_TEST_PARENT") else {
        return;
    };
    let told = start(options(Path::new(&data_dir)), |progress| println!("{progress:?}")).await;
    let stack = told.unwrap_or_else(|error| panic!("{error}"));
    let pids = [Child::Nats, Child::Postgres].map(|child| stack.child_pid(child).unwrap().to_string());
    std::fs::write(Path::new(&data_dir).join("pids.new"), pids.join(" ")).unwrap();
    std::fs::rename(Path::new(&data_dir).join("pids.new"), Path::new(&data_dir).join("pids")).unwrap();
    std::future::pending::<()>().await;
}

/// Where nothing tells the children that their parent is dead, they run on. Here nobody is told.
#[tokio::test]
async fn leftovers_are_stopped_at_the_next_start() {
    let folder = folder();
    let chosen: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
    let hear = chosen.clone();
    let stack = start(options(folder.path()), move |progress| {
        if let Progress::Chose { path: Some(path), .. } = progress {
            hear.lock().unwrap().push(path.clone());
        }
    })
    .await
    .unwrap();
    stack.stop().await;
    let leave = |binary: PathBuf, data: &str, arguments: &[&str]| {
        let data = folder.path().join(data);
        let owner = std::fs::metadata(&data).unwrap();
        let mut command = std::process::Command::new(binary);
        command.args(arguments).current_dir(&data).stderr(std::process::Stdio::null());
        command.uid(owner.uid()).gid(owner.gid()).spawn().unwrap()
    };
    let chosen = chosen.lock().unwrap().clone();
    let (nats_server, bin_dir) = if chosen[0].is_dir() { (1, 0) } else { (0, 1) };
    let mut nats = leave(chosen[nats_server].clone(), "nats", &["-c", "server.conf"]);
    let postgres = chosen[bin_dir].join("postgres");
    let mut postgres = leave(postgres, "pg", &["-D", ".", "-k", "../s", "-c", "listen_addresses="]);
    until("PostgreSQL has taken the cluster", async || folder.path().join("pg/postmaster.pid").exists().then_some(()))
        .await;

    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let hear = told.clone();
    let stack = start(options(folder.path()), move |progress| hear.lock().unwrap().push(format!("{progress:?}"))).await;
    let stack = stack.unwrap_or_else(|error| panic!("{error}"));
    let told = told.lock().unwrap().join("\n");
    assert_eq!(told.matches("has been stopped").count(), 2, "{told}");
    // Both have ended, and in order.
    assert!(nats.try_wait().unwrap().is_some() && postgres.try_wait().unwrap().is_some_and(|status| status.success()));
    sqlx::query("SELECT 1").execute(&mut sql(&stack).await).await.unwrap();
    stack.stop().await;
}

#[tokio::test]
async fn children_die_with_their_parent() {
    let folder = folder();
    let data = folder.path().join("data");
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "parent_to_be_killed"])
        .env("EMBEDDED_TEST_PARENT", &data)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pids = until("the parent's children run", async || std::fs::read_to_string(data.join("pids")).ok()).await;
    let pids: Vec<u32> = pids.split(' ').map(|pid| pid.parse().unwrap()).collect();
    parent.kill().unwrap();
    parent.wait().unwrap();
    if cfg!(target_os = "linux") {
        until("its children are gone", async || pids.iter().all(|pid| !alive(*pid)).then_some(())).await;
    }
    started(options(&data)).await.stop().await;
}
