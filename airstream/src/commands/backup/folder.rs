//! The folder of a backup: made under another name and renamed when everything in it is on the disk, so that whatever bears a
//! backup's name is one.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::manifest::Manifest;
use super::piece;
use crate::paths;

const MANIFEST: &str = "manifest.json";
/// Hashes of all files in the format of `sha256sum`.
const SUMS: &str = "SHA256SUMS";
/// The note of the last verification; not part of the backup.
const VERIFIED: &str = "verified.json";
/// Held by whoever is writing.
const LOCK: &str = "lock";
const UNFINISHED: &str = ".unfinished";

/// A backup in the making.
pub(super) struct Making {
    /// Where its files go for now.
    pub(super) path: PathBuf,
    to: PathBuf,
    _lock: File,
    finished: bool,
}

impl Making {
    /// Begins a folder beside the one it will become. What killed ones have left beside it is removed.
    pub(super) fn begin(to: &Path) -> anyhow::Result<Making> {
        let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
            bail!("{} is not a name for a folder", to.display());
        };
        let taken = to.read_dir().map(|mut content| content.next().is_some()).unwrap_or(to.exists());
        if taken {
            bail!("{} is there already: name another folder", to.display());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .with_context(|| format!("{}", parent.display()))?;
        for left in unfinished(parent) {
            let _ = fs::remove_dir_all(left);
        }
        let path = parent.join(format!(".{}{UNFINISHED}", name.to_string_lossy()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("could not make {}", path.display()))?;
        let lock = File::create(path.join(LOCK))?;
        lock.try_lock().with_context(|| format!("{} is being written by another process", to.display()))?;
        Ok(Making { path, to: to.to_owned(), _lock: lock, finished: false })
    }

    /// Writes the manifest and the sums, and gives the folder its name.
    pub(super) fn finish(mut self, manifest: &Manifest) -> anyhow::Result<PathBuf> {
        let text = serde_json::to_vec_pretty(manifest)?;
        paths::write_private(&self.path.join(MANIFEST), &text)?;
        paths::write_private(&self.path.join(SUMS), sums(manifest, &text).as_bytes())?;
        fs::remove_file(self.path.join(LOCK))?;
        File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, &self.to).with_context(|| format!("could not rename to {}", self.to.display()))?;
        if let Some(parent) = self.to.parent() {
            File::open(parent)?.sync_all()?;
        }
        self.finished = true;
        Ok(self.to.clone())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A line per file, the manifest last.
fn sums(manifest: &Manifest, text: &[u8]) -> String {
    let line = |hash: &str, file: &str| format!("{hash}  {file}\n");
    let mut sums: String = manifest.pieces().map(|piece| line(&piece.sha256, &piece.file)).collect();
    sums += &line(&piece::sha256(text), MANIFEST);
    sums
}

/// What killed ones have left in a folder: what bears their kind of name and nobody holds.
pub(super) fn unfinished(parent: &Path) -> Vec<PathBuf> {
    let entries = parent.read_dir().into_iter().flatten().flatten();
    let names = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with('.') && name.ends_with(UNFINISHED)
    });
    let held = |path: &Path| File::open(path.join(LOCK)).is_ok_and(|lock| lock.try_lock_shared().is_err());
    names.map(|entry| entry.path()).filter(|path| !held(path)).collect()
}

/// A backup that is there.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
}

/// What `verified.json` says.
#[derive(Serialize, Deserialize)]
pub(super) struct Verified {
    pub(super) verified_at: Timestamp,
    /// By which version of this program.
    pub(super) by: String,
    /// Of which manifest: a note that was copied to another backup is not about it.
    manifest_sha256: String,
}

impl Folder {
    /// Reads a manifest that is as it was written. The other files have not been looked at.
    pub(crate) fn open(path: &Path) -> Result<Folder, String> {
        let read = |file: &str| {
            fs::read(path.join(file)).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => format!("it has no {file}"),
                _ => format!("its {file} cannot be read: {error}"),
            })
        };
        let bytes = read(MANIFEST)?;
        let written = read(SUMS)?;
        let document: Value = serde_json::from_slice(&bytes).map_err(|error| format!("its {MANIFEST}: {error}"))?;
        let format = document.get("format").and_then(Value::as_u64);
        if format.is_none_or(|format| format > u64::from(super::manifest::FORMAT)) {
            return Err("it was made by a newer airstream: use that one".to_owned());
        }
        let manifest: Manifest =
            serde_json::from_value(document).map_err(|error| format!("its {MANIFEST}: {error}"))?;
        if written != sums(&manifest, &bytes).as_bytes() {
            return Err(format!(
                "its {MANIFEST} and its {SUMS} do not fit together: one of them is not what was written"
            ));
        }
        match manifest.misfit() {
            Some(misfit) => Err(misfit),
            None => Ok(Folder { path: path.to_owned(), manifest }),
        }
    }

    /// What is wrong with its files. `progress` hears how many bytes have been read.
    pub(crate) async fn faults(&self, progress: impl Fn(u64)) -> Vec<(String, String)> {
        let (mut faults, mut before) = (Vec::new(), 0);
        for piece in self.manifest.pieces() {
            if let Some(fault) = piece::fault(&self.path, piece, |bytes| progress(before + bytes)).await {
                faults.push((piece.file.clone(), fault));
            }
            before += piece.bytes;
        }
        faults
    }

    fn manifest_sha256(&self) -> Option<String> {
        fs::read(self.path.join(MANIFEST)).ok().map(|bytes| piece::sha256(&bytes))
    }

    /// When it was verified last, as far as is noted.
    pub(super) fn verified(&self) -> Option<Verified> {
        let note: Verified = serde_json::from_slice(&fs::read(self.path.join(VERIFIED)).ok()?).ok()?;
        (Some(&note.manifest_sha256) == self.manifest_sha256().as_ref()).then_some(note)
    }

    /// Notes that it is good, or takes that back. Where it cannot be written nothing is noted.
    pub(super) fn note_verified(&self, good: bool) -> io::Result<()> {
        let path = self.path.join(VERIFIED);
        let Some(manifest_sha256) = self.manifest_sha256().filter(|_| good) else {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let by = env!("CARGO_PKG_VERSION").to_owned();
        let note = Verified { verified_at: runtime::clock::now(), by, manifest_sha256 };
        paths::write_private(&path, &serde_json::to_vec_pretty(&note).unwrap_or_default())
    }
}
