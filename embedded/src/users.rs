//! Which user the servers run as, and whether that user can get to their files.
//!
//! PostgreSQL refuses to run as root, so when root starts us both servers run as somebody else.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use crate::error::StartError;

/// The user the servers run as.
#[derive(Debug, Clone)]
pub(crate) struct RunAs {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) name: String,
}

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// `None` means: as ourselves. Root's servers run as `postgres` where that user exists, else as `nobody`.
pub(crate) fn run_as() -> Result<Option<RunAs>, StartError> {
    if !is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Ok(Some(user)) = User::from_name(name)
            && !user.uid.is_root()
        {
            return Ok(Some(RunAs { uid: user.uid.as_raw(), gid: user.gid.as_raw(), name: user.name }));
        }
    }
    Err(StartError::BadOptions(
        "PostgreSQL refuses to run as root and there is neither a user 'postgres' nor 'nobody' on this machine: \
         start as another user, or create one of them"
            .to_owned(),
    ))
}

/// The first folder on the way to `path` that the user may not enter. Access control lists are not looked at.
pub(crate) fn blocked_at(path: &Path, user: &RunAs) -> Option<PathBuf> {
    let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
    ancestors.reverse();
    let blocked = ancestors.into_iter().find(|folder| {
        folder.metadata().is_ok_and(|found| {
            let search = if found.uid() == user.uid {
                0o100
            } else if found.gid() == user.gid {
                0o010
            } else {
                0o001
            };
            found.mode() & search == 0
        })
    });
    blocked.map(Path::to_owned)
}

/// Fails with the folder's name when the user cannot get to `path`.
pub(crate) fn require_way_to(path: &Path, user: Option<&RunAs>) -> Result<(), StartError> {
    let Some(user) = user else { return Ok(()) };
    match blocked_at(path, user) {
        None => Ok(()),
        Some(blocked_at) => {
            Err(StartError::NotTraversable { path: path.to_owned(), blocked_at, user: user.name.clone() })
        }
    }
}
