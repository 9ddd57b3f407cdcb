//! What lies where in a data directory. The servers' own files are `embedded`'s business.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::failure::{Exit, Failure, Outcome};

/// A log larger than this becomes `.1` when a stack starts.
const ROTATE_BYTES: u64 = 10 * 1024 * 1024;

/// The data directory that the configuration means.
pub(crate) fn data_dir(config: &Config) -> Outcome<PathBuf> {
    let path = match &config.stack.data_dir {
        Some(path) => path.clone(),
        None => embedded::default_data_dir()?,
    };
    std::path::absolute(&path)
        .map_err(|error| Failure::usage(format!("{} is not a usable path: {error}", path.display())))
}

pub(crate) fn log_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("log")
}

/// The log of our own process.
pub(crate) fn own_log(data_dir: &Path) -> PathBuf {
    log_dir(data_dir).join("airstream.log")
}

/// Makes the folder for logs before `embedded` makes the rest. The rights are those that it would give: root's folder
/// can be entered by everybody (its servers are somebody else), what is in it cannot.
pub(crate) fn make_log_dir(data_dir: &Path) -> Outcome {
    let mode = if nix::unistd::geteuid().is_root() { 0o711 } else { 0o700 };
    let failed = |error: io::Error| {
        Failure::new(Exit::Failed, format!("could not make {}: {error}", data_dir.display()))
            .hint("make it writable, or choose another folder with --data-dir")
    };
    if !data_dir.is_dir() {
        let parents = if mode == 0o711 { 0o755 } else { 0o700 };
        if let Some(parent) = data_dir.parent() {
            DirBuilder::new().recursive(true).mode(parents).create(parent).map_err(failed)?;
        }
        DirBuilder::new().recursive(true).mode(mode).create(data_dir).map_err(failed)?;
        // The mask may have taken more away than it should.
        fs::set_permissions(data_dir, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(log_dir(data_dir)).map_err(failed)
}

/// Where backups are made when nobody says where.
pub(crate) fn backups(data_dir: &Path) -> PathBuf {
    data_dir.join("backups")
}

/// Opens a log for appending, an overgrown one anew.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    if path.metadata().is_ok_and(|found| found.len() > ROTATE_BYTES) {
        let mut older = path.as_os_str().to_owned();
        older.push(".1");
        fs::rename(path, PathBuf::from(older))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Replaces a file in one step, readable by its owner only: whoever reads it sees the old or the new one.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    let aside = PathBuf::from(aside);
    let _ = fs::remove_file(&aside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_files_are_private_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        for content in ["one", "two"] {
            write_private(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
