//! The development token of a data directory: made once, kept in `<data_dir>/token` (0600), so that scripts survive a restart.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::failure::{Exit, Failure, Outcome};
use crate::paths;

/// The configured one, else the directory's, else a new one.
pub(crate) fn of(configured: &str, data_dir: &Path) -> Outcome<String> {
    if !configured.is_empty() {
        return Ok(configured.to_owned());
    }
    let path = data_dir.join("token");
    if let Ok(kept) = std::fs::read_to_string(&path)
        && kept.trim().len() >= 16
    {
        return Ok(kept.trim().to_owned());
    }
    let failed =
        |error: io::Error| Failure::new(Exit::Failed, format!("could not make the token {}: {error}", path.display()));
    let mut random = [0_u8; 24];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random)).map_err(failed)?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = format!("ast_dev_{digits}");
    paths::write_private(&path, format!("{token}\n").as_bytes()).map_err(failed)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let made = of("", folder.path()).unwrap();
        assert_eq!(made.len(), "ast_dev_".len() + 48);
        assert_eq!(of("", folder.path()).unwrap(), made);
        assert_eq!(of("given", folder.path()).unwrap(), "given");
    }
}
