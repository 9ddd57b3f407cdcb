//! The folder of a stack: made, owned by the right users, and held by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::StartError;
use crate::leftovers;
use crate::secrets::random_hex;
use crate::state;
use crate::users::{RunAs, require_way_to};
use crate::wait;

/// macOS allows 104 bytes for a socket path, its end mark included; Linux four more.
const SOCKET_PATH_BYTES: usize = 103;

const EPHEMERAL_PREFIX: &str = "airstream-ephemeral-";

/// A locked folder. Unlocked when dropped; removed as well if it was a temporary one.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    run_as: Option<RunAs>,
    remove_at_end: bool,
    /// A socket folder that is not in `path`.
    socket_elsewhere: OnceLock<PathBuf>,
    /// Closing it releases the lock, whatever way the process ends.
    _lock: File,
}

impl Directory {
    /// Makes the folder if need be and takes its lock.
    ///
    /// Root's folder can be entered by everybody (0711), because the servers are somebody else; what is in it belongs
    /// to one user each (0700, 0600).
    pub(crate) fn open(path: &Path, run_as: Option<RunAs>) -> Result<Directory, StartError> {
        make(path, if run_as.is_some() { 0o711 } else { 0o700 })?;
        let path = path.canonicalize().map_err(|error| StartError::io("find", path, error))?;
        let lock = lock(&path)?;
        require_way_to(&path.join("pg"), run_as.as_ref())?;
        let directory =
            Directory { path, run_as, remove_at_end: false, socket_elsewhere: OnceLock::new(), _lock: lock };
        make(&directory.log(), 0o700)?;
        directory.make_for_servers(&directory.nats())?;
        Ok(directory)
    }

    /// A folder of its own that is removed at the end.
    pub(crate) fn temporary(run_as: Option<RunAs>) -> Result<Directory, StartError> {
        let temp = std::env::temp_dir();
        remove_abandoned(&temp);
        let random = random_hex(6).map_err(|error| StartError::io("name a folder in", &temp, error))?;
        let mut directory = Directory::open(&temp.join(format!("{EPHEMERAL_PREFIX}{random}")), run_as)?;
        directory.remove_at_end = true;
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn run_as(&self) -> Option<&RunAs> {
        self.run_as.as_ref()
    }

    pub(crate) fn nats(&self) -> PathBuf {
        self.path.join("nats")
    }

    /// Of a cluster's server with this number, from 1.
    pub(crate) fn nats_peer(&self, number: u8) -> PathBuf {
        nats_peer(&self.path, number)
    }

    pub(crate) fn postgres(&self) -> PathBuf {
        self.path.join("pg")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state.json")
    }

    pub(crate) fn secrets(&self) -> PathBuf {
        Directory::secrets_in(&self.path)
    }

    /// The same for a folder that we do not hold.
    pub(crate) fn secrets_in(path: &Path) -> PathBuf {
        path.join("secrets.json")
    }

    /// `s/`, or a short folder in the temporary one when the path to `s/` is too long for a socket.
    pub(crate) fn make_socket_folder(&self) -> Result<PathBuf, StartError> {
        let usual = self.path.join("s");
        if socket_path_bytes(&usual) <= SOCKET_PATH_BYTES {
            self.make_for_servers(&usual)?;
            return Ok(usual);
        }
        // Named after the folder, so that the next start uses the same and none is left behind per start.
        let hash = Sha256::digest(self.path.as_os_str().as_encoded_bytes());
        let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let temp = std::env::temp_dir();
        let folder = temp.join(format!("airstream-s-{short}"));
        let bytes = socket_path_bytes(&folder);
        if bytes > SOCKET_PATH_BYTES {
            return Err(StartError::PathTooLong { path: folder.join(".s.PGSQL.5432"), bytes });
        }
        // Everybody may write to the temporary folder: do not walk into what somebody else has prepared there.
        if let Ok(found) = folder.symlink_metadata() {
            let owner = self.run_as.as_ref().map_or_else(|| nix::unistd::geteuid().as_raw(), |user| user.uid);
            if !found.is_dir() || found.uid() != owner {
                let source = io::Error::from(io::ErrorKind::PermissionDenied);
                return Err(StartError::NotWritable { path: folder, source });
            }
        }
        self.make_for_servers(&folder)?;
        require_way_to(&folder.join("x"), self.run_as.as_ref())?;
        let _ = self.socket_elsewhere.set(folder.clone());
        Ok(folder)
    }

    /// Makes a folder that belongs to the servers' user and nobody else.
    pub(crate) fn make_for_servers(&self, folder: &Path) -> Result<(), StartError> {
        make(folder, 0o700)?;
        // A link would lead the two calls below to somebody else's folder.
        if !folder.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            let source = io::Error::from(io::ErrorKind::NotADirectory);
            return Err(StartError::NotWritable { path: folder.to_owned(), source });
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .map_err(|error| StartError::io("set the rights of", folder, error))?;
        self.give_to_servers(folder)
    }

    /// Gives a file, or a folder with all that is in it, to the servers' user.
    pub(crate) fn give_to_servers(&self, path: &Path) -> Result<(), StartError> {
        let Some(user) = &self.run_as else {
            return Ok(());
        };
        give(path, user).map_err(|error| StartError::io("change the owner of", path, error))
    }
}

/// Where a cluster's server is in a data directory.
pub(crate) fn nats_peer(data_dir: &Path, number: u8) -> PathBuf {
    data_dir.join(format!("nats-{number}"))
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(folder) = self.socket_elsewhere.get() {
            // Not if there is still something in it.
            let _ = fs::remove_dir(folder);
        }
        if self.remove_at_end
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "could not remove the temporary folder");
        }
    }
}

fn socket_path_bytes(folder: &Path) -> usize {
    folder.join(".s.PGSQL.5432").as_os_str().len()
}

/// The tree is walked only if its top has another owner: below it the servers write, as the right user.
fn give(path: &Path, user: &RunAs) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    if found.uid() == user.uid && found.gid() == user.gid {
        return Ok(());
    }
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    }
    std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))
}

/// Makes a folder with its parents, whatever the mask is. Parents can be entered by those who can enter the folder.
pub(crate) fn make(path: &Path, mode: u32) -> Result<(), StartError> {
    let failed = |error| StartError::io("make the folder", path, error);
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make(parent, if mode & 0o001 == 0 { 0o700 } else { 0o755 })?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(failed(error)),
        // The mask may have taken more away than it should.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed),
    }
}

fn lock(folder: &Path) -> Result<File, StartError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| StartError::io("open", &path, error))?;
    let holder = || state::read(&folder.join("state.json")).holder;
    // A killed process gives its lock back when its last thread has ended, some milliseconds after it has stopped being
    // anybody: who kills a stack and starts it again at once should not be told that it is running.
    let dying = || holder().is_some_and(|holder| !leftovers::still_there(&holder));
    let taken = wait::until(Duration::from_secs(5), || match file.try_lock() {
        Err(TryLockError::WouldBlock) if dying() => None,
        other => Some(other),
    });
    match taken {
        Some(Ok(())) => Ok(file),
        Some(Err(TryLockError::Error(error))) => Err(StartError::io("lock", &path, error)),
        Some(Err(TryLockError::WouldBlock)) | None => {
            Err(StartError::AlreadyRunning { data_dir: folder.to_owned(), pid: holder().map(|holder| holder.pid) })
        }
    }
}

/// Removes temporary folders of processes that were killed. Best effort: what cannot be removed stays.
fn remove_abandoned(temp: &Path) {
    let Ok(entries) = fs::read_dir(temp) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(EPHEMERAL_PREFIX);
        // A young one may be between its creation and its lock.
        let old = entry
            .metadata()
            .and_then(|found| found.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > Duration::from_secs(60)));
        if ours
            && old
            && let Ok(_lock) = lock(&path)
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
}
