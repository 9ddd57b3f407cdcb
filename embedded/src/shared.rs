//! One pair of servers for all tests of a process.
//!
//! Test binaries of a checkout use the folders `<target>/airstream-test/pair-0`, `pair-1`, …: each process takes the
//! first one nobody holds, so that it finds an initialised cluster there, and two processes at once do not meet.
//! A cluster has folders `cluster-0`, … of the same kind. The servers live as long as the process. PostgreSQL does not wait for the disk here; NATS does unless told otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::directory::{Directory, make};
use crate::error::StartError;
use crate::nats::NatsAddress;
use crate::options::{NatsUser, Options};
use crate::postgres::{self, PostgresAddress};
use crate::progress::Report;
use crate::stack::{Stack, on_own_thread, start_in};
use crate::users;

/// More processes than this at once on one checkout are a mistake.
const PAIRS: usize = 64;
/// Databases that tests leave behind are cheap until there are many; then the next start begins with a new cluster.
const LEFTOVER_DATABASES: usize = 200;

/// How the shared pair is to be. The first call in a process decides.
#[derive(Debug, Clone)]
pub struct SharedOptions {
    /// `env!("CARGO_MANIFEST_DIR")` of the caller: where to look upwards for the workspace.
    pub manifest_dir: PathBuf,
    /// Users in every account besides the one that may do everything.
    pub nats_users: Vec<NatsUser>,
    /// In a cluster, see [`Options::nats_doors`].
    pub nats_doors: Vec<String>,
    /// How many accounts there are to hand out.
    pub accounts: usize,
    /// `sync_interval: always`, as in production.
    pub nats_sync_always: bool,
}

impl SharedOptions {
    /// 128 accounts without further users, syncing always.
    pub fn new(manifest_dir: impl Into<PathBuf>) -> SharedOptions {
        SharedOptions {
            manifest_dir: manifest_dir.into(),
            nats_users: Vec::new(),
            nats_doors: Vec::new(),
            accounts: 128,
            nats_sync_always: true,
        }
    }
}

/// The pair of servers shared by the tests of this process.
pub struct Shared {
    stack: Stack,
    handed_out: AtomicUsize,
}

/// A NATS account that no other test of this process has.
#[derive(Debug, Clone)]
pub struct TestAccount {
    /// `T00`, `T01`, …
    pub account: String,
    /// `nats://127.0.0.1:<port>`
    pub url: String,
    /// The user that may do everything in this account.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Full name and password of the further users, by the name in [`NatsUser`].
    pub users: BTreeMap<String, (String, String)>,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

static CLUSTER: OnceCell<Shared> = OnceCell::const_new();

/// The shared pair; the first call starts it.
pub async fn shared(options: SharedOptions) -> Result<&'static Shared, StartError> {
    let adjust = |options| options;
    shared_as(&SHARED, "pair", options, adjust).await
}

/// A cluster of three NATS servers, without PostgreSQL; the first call starts it. For the tests that need one: it costs
/// seconds and much of a small machine.
pub async fn shared_cluster(options: SharedOptions) -> Result<&'static Shared, StartError> {
    let nowhere = Some("postgres://nowhere".to_owned());
    let adjust = |options| Options { nats_servers: Some(3), postgres_url: nowhere, ..options };
    shared_as(&CLUSTER, "cluster", options, adjust).await
}

async fn shared_as(
    cell: &'static OnceCell<Shared>,
    folder: &'static str,
    options: SharedOptions,
    adjust: impl FnOnce(Options) -> Options + Send + 'static,
) -> Result<&'static Shared, StartError> {
    cell.get_or_try_init(|| async {
        let stack = on_own_thread(move || start_shared(&options, folder, adjust)).await??;
        Ok(Shared { stack, handed_out: AtomicUsize::new(0) })
    })
    .await
}

impl Shared {
    /// The superuser's way to PostgreSQL. Tests create databases of their own with it.
    ///
    /// Databases of earlier processes are still there. They belong to nobody: this process holds the pair alone,
    /// so it may drop them, or use a template it made last time.
    pub fn postgres(&self) -> &PostgresAddress {
        self.stack.postgres()
    }

    /// Account `APP`, shared by all tests of this process. Those that create streams want [`Shared::account`].
    pub fn nats(&self) -> &NatsAddress {
        self.stack.nats()
    }

    /// An account without streams that nobody else gets.
    ///
    /// Fails when all are handed out: then the process has more tests than [`SharedOptions::accounts`].
    pub fn account(&self) -> Result<TestAccount, StartError> {
        let number = self.handed_out.fetch_add(1, Ordering::Relaxed);
        let accounts = self.stack.test_accounts();
        let account = accounts.get(number).ok_or_else(|| {
            StartError::BadOptions(format!(
                "all {} test accounts of this process are handed out: raise SharedOptions::accounts",
                accounts.len()
            ))
        })?;
        let (user, password) = account.internal.clone();
        Ok(TestAccount {
            account: account.name.clone(),
            url: self.stack.nats().url.clone(),
            user,
            password,
            users: account
                .users
                .iter()
                .map(|(user, full, password)| (user.name.clone(), (full.clone(), password.clone())))
                .collect(),
        })
    }

    /// The stack itself, for its folders and logs.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }
}

fn start_shared(
    wanted: &SharedOptions,
    folder: &str,
    adjust: impl FnOnce(Options) -> Options,
) -> Result<Stack, StartError> {
    let run_as = users::run_as()?;
    let mut root = target_dir(&wanted.manifest_dir).join("airstream-test");
    if users::require_way_to(&root.join(format!("{folder}-0/pg")), run_as.as_ref()).is_err() && !root.exists() {
        root = elsewhere(&root);
    }
    make(&root, 0o755)?;
    if users::require_way_to(&root.join(format!("{folder}-0/pg")), run_as.as_ref()).is_err() {
        root = elsewhere(&root);
        make(&root, 0o755)?;
    }
    let directory = first_free(&root, folder, run_as.as_ref())?;
    let defaults = Options::default();
    // A home that cannot be written must not keep tests from running.
    let cache_dir = if make(&defaults.cache_dir, 0o755).is_ok() { defaults.cache_dir } else { root.join("cache") };
    let options = adjust(Options {
        cache_dir,
        nats_users: wanted.nats_users.clone(),
        nats_doors: wanted.nats_doors.clone(),
        accounts: wanted.accounts,
        nats_sync_always: wanted.nats_sync_always,
        postgres_fsync: false,
        data_dir: directory.path().to_owned(),
        ..Options::default()
    });
    empty(&directory)?;
    let report: Report = Arc::new(|_| {});
    start_in(directory, &options, &report)
}

/// A folder the servers' user can get to, the same one for the same checkout.
fn elsewhere(root: &Path) -> PathBuf {
    let hash = Sha256::digest(root.as_os_str().as_encoded_bytes());
    let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    std::env::temp_dir().join(format!("airstream-test-{short}"))
}

fn first_free(root: &Path, folder: &str, run_as: Option<&users::RunAs>) -> Result<Directory, StartError> {
    let mut number = 0;
    loop {
        match Directory::open(&root.join(format!("{folder}-{number}")), run_as.cloned()) {
            Err(StartError::AlreadyRunning { .. }) if number + 1 < PAIRS => number += 1,
            other => return other,
        }
    }
}

/// Accounts are to be without streams; and a cluster full of databases is slower than a new one.
fn empty(directory: &Directory) -> Result<(), StartError> {
    let state = crate::state::StateFile::load(&directory.state());
    crate::nats::stop_leftovers(directory, &state);
    postgres::stop_leftovers(directory, &state);
    let mut unwanted = vec![directory.nats().join("jetstream")];
    unwanted.extend((1..=3).map(|number| directory.nats_peer(number).join("jetstream")));
    if postgres::databases(&directory.postgres()) > LEFTOVER_DATABASES {
        unwanted.push(directory.postgres());
    }
    for path in unwanted.into_iter().filter(|path| path.exists()) {
        fs::remove_dir_all(&path).map_err(|error| StartError::io("remove", &path, error))?;
    }
    Ok(())
}

/// Cargo marks its target folder with a file, and a test's executable lies in it.
fn target_dir(manifest_dir: &Path) -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    if let Some(marked) = executable.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()) {
        return marked.to_owned();
    }
    let workspace = manifest_dir.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    workspace.unwrap_or(manifest_dir).join("target")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::deps::Dependency;
    use crate::fetch;
    use crate::progress::{Child, Progress, Source};

    /// Debian's package and the pinned one are different majors; the pinned one also runs on machines with none.
    #[test]
    fn the_fetched_postgres_runs_and_keeps_the_cluster_of_another_version() {
        let report: Report = Arc::new(|_| {});
        // Not in the usual cache: from there it would be preferred to the installed one by everybody else.
        let cache_dir = target_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).join("airstream-test/fetched");
        let dependency = Dependency::of(Child::Postgres).unwrap();
        fetch::fetch(&dependency, &cache_dir, &report).unwrap();
        let run_as = users::run_as().unwrap();
        let folder = tempfile::Builder::new().prefix("embedded test ").tempdir().unwrap();
        let rights = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), rights).unwrap();
        let data_dir = folder.path().join("data");
        let start = |cache_dir: &Path| {
            let told = Arc::new(Mutex::new(Vec::new()));
            let hear = told.clone();
            let report: Report = Arc::new(move |progress: &Progress| hear.lock().unwrap().push(progress.clone()));
            let options = Options {
                cache_dir: cache_dir.to_owned(),
                nats_url: Some("nats://nowhere".to_owned()),
                data_dir: data_dir.clone(),
                ..Options::default()
            };
            let directory = Directory::open(&data_dir, run_as.clone()).unwrap();
            let stack = start_in(directory, &options, &report).unwrap_or_else(|error| panic!("{error}"));
            let version = stack.postgres().version.clone().unwrap();
            drop(stack);
            let told = told.lock().unwrap().clone();
            (version, told)
        };
        let (fetched, told) = start(&cache_dir);
        assert_eq!(fetched, "18.4");
        let from_cache =
            |told: &[Progress]| told.iter().any(|told| matches!(told, Progress::Chose { source: Source::Cache, .. }));
        assert!(from_cache(&told), "{told:?}");
        let ready = told.iter().rfind(|told| matches!(told, Progress::Ready { .. }));
        assert!(ready.is_some(), "{told:?}");
        if PathBuf::from("/usr/lib/postgresql/15/bin").exists() {
            let (installed, _) = start(&Options::default().cache_dir);
            assert!(installed.starts_with("15."), "{installed}");
            assert!(data_dir.join("pg-18-kept-1/PG_VERSION").exists());
        }
    }
}
