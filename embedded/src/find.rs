//! Which server runs: given URL, given path, cache, installed, fetched. The first that fits wins.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::deps::Dependency;
use crate::error::StartError;
use crate::fetch::{self, Cached};
use crate::options::Options;
use crate::progress::{Child, Progress, Report, Source, notice};
use crate::users::RunAs;

/// A server to run.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) what: Child,
    /// `nats-server` itself, or PostgreSQL's folder of binaries.
    pub(crate) path: PathBuf,
    pub(crate) version: Version,
    pub(crate) source: Source,
    /// For one from the cache: what its files must be, checked again before every execution.
    pinned: Option<(Dependency, PathBuf)>,
}

impl Chosen {
    /// Checks a cached server's files once more.
    pub(crate) fn verify(&self) -> Result<(), StartError> {
        match &self.pinned {
            None => Ok(()),
            Some((dependency, folder)) => fetch::verify(dependency, folder),
        }
    }
}

/// What was seen before anything is fetched.
pub(crate) struct Seen {
    pub(crate) lookup: Lookup,
    /// Why the copy in the cache, if there is one, cannot be used.
    pub(crate) broken_cache: Option<String>,
}

/// Where the server is to come from.
pub(crate) enum Lookup {
    /// Somebody else's server.
    External(String),
    /// This one.
    Found(Chosen),
    /// None of the places has one. What was seen and passed over.
    Missing { passed_over: Vec<String> },
}

/// A version, as far as it matters: 2.15, 18.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) patch: u32,
}

impl Version {
    /// The first number in what `--version` prints: `nats-server: v2.15.1`, `postgres (PostgreSQL) 15.18 (Debian …)`.
    pub(crate) fn parse(text: &str) -> Option<Version> {
        let word = text
            .split_whitespace()
            .map(|word| word.trim_start_matches('v'))
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
        let mut numbers = word.split('.').map(|part| {
            let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        });
        Some(Version { major: numbers.next()?, minor: numbers.next().unwrap_or(0), patch: numbers.next().unwrap_or(0) })
    }

    fn text(&self, what: Child) -> String {
        match what {
            Child::Nats | Child::NatsPeer(_) => format!("{}.{}.{}", self.major, self.minor, self.patch),
            // PostgreSQL has had two numbers since version 10.
            Child::Postgres => format!("{}.{}", self.major, self.minor),
        }
    }

    fn is_supported(&self, what: Child) -> bool {
        match what {
            // Atomic batches, schedules and consumer reset came with 2.14.
            Child::Nats | Child::NatsPeer(_) => (self.major, self.minor) >= (2, 14),
            Child::Postgres => self.major >= 15,
        }
    }
}

impl Chosen {
    pub(crate) fn version_text(&self) -> String {
        self.version.text(self.what)
    }
}

fn minimum(what: Child) -> &'static str {
    match what {
        Child::Nats | Child::NatsPeer(_) => "2.14",
        Child::Postgres => "15",
    }
}

/// Looks in every place but the package index. Starts nothing but `--version`.
pub(crate) fn look(what: Child, options: &Options, run_as: Option<&RunAs>) -> Result<Seen, StartError> {
    let seen = |lookup| Seen { lookup, broken_cache: None };
    let (url, path) = match what {
        Child::Nats | Child::NatsPeer(_) => (&options.nats_url, &options.nats_binary),
        Child::Postgres => (&options.postgres_url, &options.postgres_bin_dir),
    };
    if let Some(url) = url {
        return Ok(seen(Lookup::External(url.clone())));
    }
    if let Some(path) = path {
        return explicit(what, path).map(|chosen| seen(Lookup::Found(chosen)));
    }
    let mut broken_cache = None;
    if let Ok(dependency) = Dependency::of(what) {
        match fetch::cached(&dependency, &options.cache_dir) {
            Cached::Good => {
                let chosen = from_cache(&dependency, &options.cache_dir, Source::Cache)?;
                return Ok(seen(Lookup::Found(chosen)));
            }
            Cached::Broken(why) => broken_cache = Some(why),
            Cached::Missing => {}
        }
    }
    let mut passed_over = Vec::new();
    let mut best: Option<Chosen> = None;
    for path in installed(what) {
        match ask(what, &path) {
            Err(reason) => passed_over.push(format!("{} does not work: {reason}", path.display())),
            Ok(version) if !version.is_supported(what) => {
                passed_over.push(format!("{} is version {}, too old", path.display(), version.text(what)));
            }
            Ok(_) if crate::users::require_way_to(&executable(what, &path), run_as).is_err() => {
                passed_over.push(format!("{} cannot be reached by the servers' user", path.display()));
            }
            Ok(version) => {
                // The first in PATH wins among equals, the newest among the rest.
                if best.as_ref().is_none_or(|best| version > best.version) {
                    best = Some(Chosen { what, path, version, source: Source::System, pinned: None });
                }
            }
        }
    }
    let lookup = match best {
        Some(chosen) => Lookup::Found(chosen),
        None => Lookup::Missing { passed_over },
    };
    Ok(Seen { lookup, broken_cache })
}

/// The server to run, fetched if need be. `Err(url)` inside means somebody else's.
pub(crate) fn choose(
    what: Child,
    options: &Options,
    run_as: Option<&RunAs>,
    report: &Report,
) -> Result<Result<Chosen, String>, StartError> {
    let seen = look(what, options, run_as)?;
    if let Some(why) = seen.broken_cache
        && let Ok(dependency) = Dependency::of(what)
    {
        notice(report, what, format!("the cached {what} is damaged ({why}) and has been removed"));
        fetch::discard(&dependency, &options.cache_dir)?;
    }
    let chosen = match seen.lookup {
        Lookup::External(url) => {
            report(&Progress::Chose { what, version: None, path: None, source: Source::External });
            return Ok(Err(url));
        }
        Lookup::Found(chosen) => chosen,
        Lookup::Missing { passed_over } => {
            let dependency = Dependency::of(what).map_err(|reason| not_available(what, &passed_over, &reason))?;
            fetch::fetch(&dependency, &options.cache_dir, report).map_err(|error| match error {
                StartError::NotAvailable { reason, .. } => not_available(what, &passed_over, &reason),
                other => other,
            })?;
            from_cache(&dependency, &options.cache_dir, Source::Fetched)?
        }
    };
    crate::users::require_way_to(&executable(what, &chosen.path), run_as)?;
    report(&Progress::Chose {
        what,
        version: Some(chosen.version_text()),
        path: Some(chosen.path.clone()),
        source: chosen.source,
    });
    Ok(Ok(chosen))
}

fn not_available(what: Child, passed_over: &[String], reason: &str) -> StartError {
    let mut reasons = passed_over.to_vec();
    reasons.push(reason.to_owned());
    StartError::NotAvailable { what, reason: reasons.join("; ") }
}

fn explicit(what: Child, path: &Path) -> Result<Chosen, StartError> {
    let bad = |reason| StartError::BadBinary { what, path: path.to_owned(), reason };
    // Children change their working directory, so a relative path would lead elsewhere.
    let path = std::path::absolute(path).map_err(|error| bad(error.to_string()))?;
    let version = ask(what, &path).map_err(bad)?;
    if !version.is_supported(what) {
        let version = version.text(what);
        return Err(StartError::TooOld { what, path, version, minimum: minimum(what) });
    }
    Ok(Chosen { what, path, version, source: Source::Explicit, pinned: None })
}

fn from_cache(dependency: &Dependency, cache_dir: &Path, source: Source) -> Result<Chosen, StartError> {
    let what = dependency.what;
    let folder = dependency.folder(cache_dir);
    let folder = folder.canonicalize().map_err(|error| StartError::io("find", &folder, error))?;
    let path = dependency.binary(&folder);
    let version = Version::parse(&dependency.version)
        .ok_or_else(|| StartError::BadOptions(format!("deps.lock.toml has no version for {what}")))?;
    Ok(Chosen { what, path, version, source, pinned: Some((dependency.clone(), folder)) })
}

fn executable(what: Child, path: &Path) -> PathBuf {
    match what {
        Child::Nats | Child::NatsPeer(_) => path.to_owned(),
        Child::Postgres => path.join("postgres"),
    }
}

/// Asks a binary for its version. The reason it failed is for people.
fn ask(what: Child, path: &Path) -> Result<Version, String> {
    let executable = executable(what, path);
    if what == Child::Postgres && !path.join("initdb").is_file() {
        return Err("there is no initdb beside it".to_owned());
    }
    let output = Command::new(&executable)
        .arg("--version")
        .output()
        .map_err(|error| format!("{}: {error}", executable.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Many programs answer, and with a version.
    let says_who = match what {
        Child::Nats | Child::NatsPeer(_) => "nats-server",
        Child::Postgres => "postgres",
    };
    let version = text.starts_with(says_who).then(|| Version::parse(&text)).flatten();
    version.ok_or_else(|| format!("`--version` said {:?} ({})", text.trim(), output.status))
}

/// Where an installed server may be: PATH, and for PostgreSQL the places where distributions keep it out of PATH.
fn installed(what: Child) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in std::env::split_paths(&path).filter(|folder| folder.is_absolute()) {
        match what {
            Child::Nats | Child::NatsPeer(_) => found.push(folder.join("nats-server")),
            Child::Postgres => found.push(folder),
        }
    }
    if what == Child::Postgres {
        for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-"), ("/opt/homebrew/opt", "postgresql@")]
        {
            let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
            found.extend(
                entries
                    .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                    .map(|entry| entry.path().join("bin")),
            );
        }
    }
    // Links in PATH lead to the same installation, and its real place says more.
    let mut places: Vec<PathBuf> = Vec::new();
    for path in found {
        let Ok(real) = executable(what, &path).canonicalize() else {
            continue;
        };
        let place = match (what, real.parent()) {
            (Child::Postgres, Some(folder)) => folder.to_owned(),
            _ => real,
        };
        if executable(what, &place).is_file() && !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_servers_print() {
        let version = |major, minor, patch| Some(Version { major, minor, patch });
        assert_eq!(Version::parse("nats-server: v2.15.1\n"), version(2, 15, 1));
        assert_eq!(Version::parse("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), version(15, 18, 0));
        assert_eq!(Version::parse("postgres (PostgreSQL) 19beta1"), version(19, 0, 0));
        assert_eq!(Version::parse("no such thing"), None);
    }

    #[test]
    fn the_supported_versions() {
        let supported = |what, text| Version::parse(text).is_some_and(|version| version.is_supported(what));
        assert!(supported(Child::Nats, "2.14.0") && supported(Child::Nats, "3.0"));
        assert!(!supported(Child::Nats, "2.9.10"));
        assert!(supported(Child::Postgres, "15.2") && !supported(Child::Postgres, "14.99"));
    }
}
