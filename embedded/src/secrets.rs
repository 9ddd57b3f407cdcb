//! Random passwords, made once per folder and kept in `secrets.json` (0600).
//!
//! Even on loopback: every local user can connect to a loopback port.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::StartError;

/// Passwords by name (`nats/airstream`, `postgres/airstream`, …).
pub(crate) struct Secrets {
    path: PathBuf,
    passwords: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    passwords: BTreeMap<String, String>,
}

impl Secrets {
    /// A file that cannot be parsed counts as missing: passwords can be made anew, and the servers are told.
    pub(crate) fn load(path: &Path) -> Result<Secrets, StartError> {
        let stored = match fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<Stored>(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StartError::io("read", path, error)),
        };
        let passwords = stored.map(|stored| stored.passwords).unwrap_or_default();
        Ok(Secrets { path: path.to_owned(), passwords })
    }

    /// Whether there is a password under this name already.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.passwords.contains_key(name)
    }

    /// The password under this name, made now if there was none.
    pub(crate) fn password(&mut self, name: &str) -> Result<String, StartError> {
        self.made(name, || random_hex(24))
    }

    /// The secret under this name, made now if there was none.
    pub(crate) fn made(&mut self, name: &str, make: impl FnOnce() -> io::Result<String>) -> Result<String, StartError> {
        if let Some(known) = self.passwords.get(name) {
            return Ok(known.clone());
        }
        let made = make().map_err(|error| StartError::io("read", Path::new("/dev/urandom"), error))?;
        self.passwords.insert(name.to_owned(), made.clone());
        Ok(made)
    }

    pub(crate) fn save(&self) -> Result<(), StartError> {
        let stored = Stored { passwords: self.passwords.clone() };
        let text = serde_json::to_vec_pretty(&stored).unwrap_or_default();
        write_private(&self.path, &text).map_err(|error| StartError::io("write", &self.path, error))
    }
}

/// Hexadecimal, so that it needs no quoting in a URL or a configuration file.
pub(crate) fn random_hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Replaces a file in one step, readable by its owner only.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let _ = fs::remove_file(&aside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&aside, path)
}
