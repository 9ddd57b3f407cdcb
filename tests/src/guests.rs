//! Other people's programs that stories run: packages of Python and Node, from the machine's package indexes, installed once
//! per checkout and list of packages.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Below `target`, beside what cargo builds.
fn folder(kind: &str, packages: &[&str]) -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows where it is");
    let target = exe.ancestors().nth(3).expect("a test lies in target/<profile>/deps").join("airstream-guests");
    let name: String = packages.iter().map(|package| package.replace(['/', '@', '='], "-") + "_").collect();
    target.join(kind).join(name)
}

/// Installs into a folder unless that was done before; also by another process at this moment.
fn once(folder: &Path, install: impl FnOnce(&Path)) {
    let ready = folder.join("ready");
    if ready.exists() {
        return;
    }
    std::fs::create_dir_all(folder).expect("a folder below target");
    let lock = File::create(folder.with_extension("lock")).expect("a file below target");
    lock.lock().expect("a lock on it");
    if !ready.exists() {
        install(folder);
        std::fs::write(ready, "").expect("a file below target");
    }
}

fn succeed(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{command:?}: {status:?}");
}

/// A Python that has these packages, each `name==version`.
///
/// # Panics
/// When they cannot be had: the test fails then, it is not skipped.
#[must_use]
pub fn python(packages: &[&str]) -> PathBuf {
    let folder = folder("python", packages);
    let python = folder.join("bin/python");
    once(&folder, |folder| {
        succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder));
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        succeed(Command::new(&python).args(pip).args(packages));
    });
    python
}

/// A folder below which Node finds these packages, each `name@version`: for its environment variable `NODE_PATH`.
///
/// # Panics
/// When they cannot be had: the test fails then, it is not skipped.
#[must_use]
pub fn node_modules(packages: &[&str]) -> PathBuf {
    let folder = folder("node", packages);
    once(&folder, |folder| {
        std::fs::write(folder.join("package.json"), "{}").expect("a file below target");
        let npm = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
        succeed(Command::new("npm").args(npm).arg(folder).args(packages));
    });
    folder.join("node_modules")
}

/// A program that is killed at the end of a story, however the story ends.
pub struct Killed(pub std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
