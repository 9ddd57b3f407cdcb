//! What may be fetched: `deps.lock.toml`, compiled in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::progress::Child;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Lock {
    nats_server: Entry,
    postgres: Entry,
}

#[derive(Deserialize)]
struct Entry {
    version: String,
    client: Client,
    package: String,
    strip: String,
    symlinks: Option<String>,
    platforms: BTreeMap<String, Platform>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Platform {
    npm_platform: Option<String>,
    archive: String,
    files: BTreeMap<String, String>,
}

/// The package client that fetches a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Client {
    Pip,
    Npm,
}

/// A server that may be fetched for this platform.
#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) what: Child,
    pub(crate) version: String,
    pub(crate) client: Client,
    /// Name and version, as the client wants them.
    pub(crate) package: String,
    /// SHA-256 of the archive the client brings.
    pub(crate) archive: String,
    /// What precedes the paths we keep; everything else in the archive is left out.
    pub(crate) strip: String,
    /// A list of links to make, among the kept files.
    pub(crate) symlinks: Option<String>,
    /// SHA-256 of the files that are executed or loaded, by path.
    pub(crate) files: BTreeMap<String, String>,
}

impl Dependency {
    /// What is pinned for this platform, or why nothing is.
    pub(crate) fn of(what: Child) -> Result<Dependency, String> {
        let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        Dependency::on(what, &platform)
    }

    fn on(what: Child, platform: &str) -> Result<Dependency, String> {
        let lock: Lock = toml::from_str(include_str!("../deps.lock.toml"))
            .map_err(|error| format!("deps.lock.toml is broken: {error}"))?;
        let mut entry = match what {
            Child::Nats | Child::NatsPeer(_) => lock.nats_server,
            Child::Postgres => lock.postgres,
        };
        let pinned = entry.platforms.remove(platform).ok_or_else(|| format!("no package is pinned for {platform}"))?;
        let package = entry.package.replace("{npm-platform}", pinned.npm_platform.as_deref().unwrap_or_default());
        Ok(Dependency {
            what,
            version: entry.version,
            client: entry.client,
            package,
            archive: pinned.archive,
            strip: entry.strip,
            symlinks: entry.symlinks,
            files: pinned.files,
        })
    }

    /// `<cache>/deps/<name>-<version>-<sha8>`
    pub(crate) fn folder(&self, cache_dir: &Path) -> PathBuf {
        let name = match self.what {
            Child::Nats | Child::NatsPeer(_) => "nats-server",
            Child::Postgres => "postgres",
        };
        let short: String = self.archive.chars().take(8).collect();
        cache_dir.join("deps").join(format!("{name}-{}-{short}", self.version))
    }

    /// `nats-server` itself, or PostgreSQL's folder of binaries.
    pub(crate) fn binary(&self, folder: &Path) -> PathBuf {
        match self.what {
            Child::Nats | Child::NatsPeer(_) => folder.join("nats-server"),
            Child::Postgres => folder.join("bin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_is_a_sha256() {
        for what in [Child::Nats, Child::Postgres] {
            for platform in ["linux-x86_64", "linux-aarch64", "macos-aarch64"] {
                let dependency = Dependency::on(what, platform).unwrap();
                let pins = dependency.files.values().chain([&dependency.archive]);
                for pin in pins {
                    assert!(pin.len() == 64 && pin.bytes().all(|byte| byte.is_ascii_hexdigit()), "{pin}");
                }
                assert!(!dependency.package.contains('{'), "{}", dependency.package);
            }
        }
    }

    #[test]
    fn an_unknown_platform_is_named() {
        let refused = Dependency::on(Child::Nats, "plan9-mips").unwrap_err();
        assert_eq!(refused, "no package is pinned for plan9-mips");
    }
}
