//! What a start would use, and what would be in its way. Starts nothing, fetches nothing, changes nothing.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use crate::deps::Dependency;
use crate::find::{self, Lookup, Seen};
use crate::nats;
use crate::options::Options;
use crate::progress::Child;
use crate::users::{self, blocked_at};

/// Below this a stack starts and soon stops.
const LITTLE_SPACE: u64 = 1024 * 1024 * 1024;
/// One per connection and several per stream.
const FEW_FILES: u64 = 4096;

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As it should be.
    Ok,
    /// A start works, and something is worth knowing.
    Warn,
    /// A start would fail.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub name: String,
    /// How it is to be taken.
    pub status: Status,
    /// What was seen.
    pub detail: String,
    /// What to do about it; empty if nothing.
    pub hint: String,
}

/// Looks at everything a start with these options depends on.
pub fn doctor(options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    let run_as = match users::run_as() {
        Ok(None) => {
            findings.push(ok("user", "the servers run as the current user".to_owned()));
            None
        }
        Ok(Some(user)) => {
            findings.push(ok("user", format!("root starts, the servers run as '{}'", user.name)));
            Some(user)
        }
        Err(error) => {
            findings.push(fail("user", error.to_string(), String::new()));
            None
        }
    };
    for what in [Child::Nats, Child::Postgres] {
        findings.push(server(what, options, run_as.as_ref()));
        if what == Child::Nats && !options.ephemeral && options.nats_url.is_none() {
            findings.extend(nats::findings(&options.data_dir));
        }
    }
    if !options.ephemeral {
        findings.push(folder("data directory", &options.data_dir, run_as.as_ref()));
        findings.push(lock(&options.data_dir));
        findings.push(space(&options.data_dir));
    } else {
        findings.push(folder("temporary folder", &std::env::temp_dir().join("airstream"), run_as.as_ref()));
        findings.push(space(&std::env::temp_dir()));
    }
    findings.push(folder("cache directory", &options.cache_dir.join("deps"), run_as.as_ref()));
    findings.push(loopback());
    findings.extend(open_files());
    findings
}

fn ok(name: &str, detail: String) -> Finding {
    Finding { name: name.to_owned(), status: Status::Ok, detail, hint: String::new() }
}

fn warn(name: &str, detail: String, hint: String) -> Finding {
    Finding { name: name.to_owned(), status: Status::Warn, detail, hint }
}

fn fail(name: &str, detail: String, hint: String) -> Finding {
    Finding { name: name.to_owned(), status: Status::Fail, detail, hint }
}

fn server(what: Child, options: &Options, run_as: Option<&users::RunAs>) -> Finding {
    let name = what.to_string();
    let Seen { lookup, broken_cache } = match find::look(what, options, run_as) {
        Err(error) => return fail(&name, error.to_string(), String::new()),
        Ok(seen) => seen,
    };
    let damaged = broken_cache.map(|why| format!("the cached one is damaged: {why}"));
    match lookup {
        Lookup::External(_) => ok(&name, "given by URL; it is not started and not watched".to_owned()),
        Lookup::Found(chosen) => {
            let detail = format!("{} {} ({})", chosen.version_text(), chosen.path.display(), chosen.source);
            match damaged {
                None => ok(&name, detail),
                Some(damaged) => warn(&name, format!("{detail}; {damaged}"), "the next start removes it".to_owned()),
            }
        }
        Lookup::Missing { passed_over } => {
            let mut seen = passed_over;
            seen.extend(damaged);
            let seen = if seen.is_empty() { "none on this machine".to_owned() } else { seen.join("; ") };
            match Dependency::of(what) {
                Ok(dependency) => {
                    warn(&name, seen, format!("the next start fetches {} and verifies it", dependency.package))
                }
                Err(reason) => {
                    fail(&name, format!("{seen}; {reason}"), "install it, or give its path or URL".to_owned())
                }
            }
        }
    }
}

/// The nearest folder on the way that is there.
fn existing(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn folder(name: &str, path: &Path, run_as: Option<&users::RunAs>) -> Finding {
    let shown = path.display();
    let existing = existing(path);
    if !existing.is_dir() || access(&existing, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        let hint = format!("make {} writable, or choose another folder", existing.display());
        return fail(name, format!("{shown} cannot be written"), hint);
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Some(user) = run_as
        && let Some(blocked) = blocked_at(&path.join("x"), user)
    {
        let hint = format!("choose a folder outside of it, or run `chmod o+x {}`", blocked.display());
        return fail(name, format!("'{}' cannot enter {} on the way to {shown}", user.name, blocked.display()), hint);
    }
    ok(name, shown.to_string())
}

fn lock(data_dir: &Path) -> Finding {
    let path = data_dir.join("lock");
    let Ok(file) = File::open(&path) else {
        return ok("lock", "never started here".to_owned());
    };
    match file.try_lock_shared() {
        Ok(()) => ok("lock", "free".to_owned()),
        Err(_) => {
            let pid = crate::state::read(&data_dir.join("state.json")).holder.map(|holder| holder.pid);
            let by = pid.map(|pid| format!(" by process {pid}")).unwrap_or_default();
            warn(
                "lock",
                format!("held{by}: a stack is running here"),
                "a second one needs another data directory".to_owned(),
            )
        }
    }
}

fn space(path: &Path) -> Finding {
    let name = "disk space";
    match statvfs(&existing(path)) {
        Err(error) => warn(name, format!("could not be asked for: {error}"), String::new()),
        Ok(found) => {
            // The width of both numbers depends on the platform.
            #[allow(clippy::unnecessary_cast)]
            let free = (found.blocks_available() as u64).saturating_mul(found.fragment_size() as u64);
            let detail = format!("{:.1} GB free for {}", free as f64 / 1e9, path.display());
            if free < LITTLE_SPACE {
                warn(name, detail, "free some space, or choose a folder on another disk".to_owned())
            } else {
                ok(name, detail)
            }
        }
    }
}

fn loopback() -> Finding {
    match std::net::TcpListener::bind("127.0.0.1:0") {
        Ok(_) => ok("loopback", "free ports on 127.0.0.1".to_owned()),
        Err(error) => {
            fail("loopback", format!("no port on 127.0.0.1: {error}"), "bring the loopback interface up".to_owned())
        }
    }
}

/// The limit our children inherit. Only Linux says it in a file.
fn open_files() -> Option<Finding> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    let mut numbers = line.split_whitespace().skip(3);
    let (soft, hard) = (numbers.next()?, numbers.next()?);
    let detail = format!("{soft}, at most {hard}");
    // nats-server raises its soft limit to the hard one by itself.
    match hard.parse::<u64>() {
        Ok(hard) if hard < FEW_FILES => {
            Some(warn("open files", detail, format!("raise the limit: `ulimit -n {FEW_FILES}`")))
        }
        _ => Some(ok("open files", detail)),
    }
}
