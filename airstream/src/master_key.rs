//! The master key: given by the configuration, or made once beside the data of a local stack (`<data_dir>/master.key`, 0600).

use std::io;
use std::path::Path;

use vault::MasterKey;

use crate::config::Config;
use crate::failure::{Exit, Failure, Outcome};
use crate::paths;

/// The configured one, if there is one.
pub(crate) fn configured(config: &Config) -> Outcome<Option<MasterKey>> {
    let identity = &config.identity;
    if !identity.master_key.is_empty() {
        return parse(&identity.master_key, "identity.master_key").map(Some);
    }
    match &identity.master_key_file {
        None => Ok(None),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::new(Exit::Failed, format!("could not read the master key {}: {error}", path.display()))
                    .hint("identity.master_key_file names it")
            })?;
            parse(&text, &path.display().to_string()).map(Some)
        }
    }
}

/// The configured one, else the directory's, else a new one.
pub(crate) fn of(config: &Config, data_dir: &Path) -> Outcome<MasterKey> {
    if let Some(key) = configured(config)? {
        return Ok(key);
    }
    let path = data_dir.join("master.key");
    let failed = |error: io::Error| {
        Failure::new(Exit::Failed, format!("could not make the master key {}: {error}", path.display()))
    };
    match std::fs::read_to_string(&path) {
        Ok(kept) => return parse(&kept, &path.display().to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Never another one in place of one that cannot be read now: everything sealed would be lost.
        Err(error) => return Err(failed(error)),
    }
    let made = MasterKey::generate();
    paths::write_private(&path, format!("{made}\n").as_bytes()).map_err(failed)?;
    parse(&made, &path.display().to_string())
}

fn parse(text: &str, place: &str) -> Outcome<MasterKey> {
    MasterKey::parse(text).map_err(|error| Failure::new(Exit::Failed, format!("{place}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_a_damaged_one_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (config, path) = (Config::default(), folder.path().join("master.key"));
        of(&config, folder.path()).unwrap();
        let made = std::fs::read_to_string(&path).unwrap();
        of(&config, folder.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), made);
        std::fs::write(&path, "damaged").unwrap();
        assert!(of(&config, folder.path()).unwrap_err().message.contains("32 random bytes"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "damaged");
    }

    #[test]
    fn a_configured_key_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        assert!(configured(&config).unwrap().is_none());
        config.identity.master_key_file = Some(folder.path().join("elsewhere"));
        assert!(configured(&config).unwrap_err().message.contains("elsewhere"));
        std::fs::write(folder.path().join("elsewhere"), MasterKey::generate()).unwrap();
        assert!(of(&config, folder.path()).is_ok());
        assert!(!folder.path().join("master.key").exists());
    }
}
