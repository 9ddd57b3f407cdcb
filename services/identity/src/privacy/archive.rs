//! Files of an archive. The same content gives the same bytes.

use std::io::{Cursor, Write as _};

use kernel::Problem;
use serde_json::Value;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Largest archive, in bytes, before it is compressed: it is made in memory.
const MOST_BYTES: usize = 128 * 1024 * 1024;

/// What stands first in every archive.
const README: &str = "\
This is everything that Airstream stores about you, as JSON (RFC 8259), in UTF-8.

profile.json        what you are called, and how you may sign in
sessions.json       where you are signed in
credentials.json    what you show to sign in: that it exists, never what it is
identities.json     identities at other providers by which you may sign in
memberships.json    tenants that you belong to, and in which role
invitations.json    invitations to your address
api-keys.json       keys of programs that you have made: their names, never their secrets
history.json        everything that happened to your account, from the first day
mails.json          mails to you that wait to be sent

Passwords are kept as hashes that cannot be turned back, secrets of authenticators and recovery codes are for
signing in only; none of them is in here. What you did in a tenant belongs to that tenant.
";

/// Packs files into a ZIP archive.
pub(super) fn pack(files: &[(&str, Value)]) -> Result<Vec<u8>, Problem> {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "an archive could not be packed");
        Problem::new(500, "defect", "The archive could not be made; it has been logged.")
    };
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    archive.start_file("README.txt", options).map_err(|error| failed(&error))?;
    archive.write_all(README.as_bytes()).map_err(|error| failed(&error))?;
    let mut written = 0;
    for (name, content) in files {
        let text = serde_json::to_vec_pretty(content).map_err(|error| failed(&error))?;
        written += text.len();
        if written > MOST_BYTES {
            return Err(Problem::new(413, "too_large", "There is too much for one archive; ask an operator."));
        }
        archive.start_file(*name, options).map_err(|error| failed(&error))?;
        archive.write_all(&text).map_err(|error| failed(&error))?;
    }
    Ok(archive.finish().map_err(|error| failed(&error))?.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use serde_json::json;

    use super::*;

    #[test]
    fn an_archive_holds_its_files_and_is_the_same_twice() {
        let files = [("profile.json", json!({ "name": "Ann Bee" })), ("mails.json", json!([]))];
        let packed = pack(&files).expect("an archive");
        assert_eq!(packed, pack(&files).expect("an archive"));
        let mut archive = zip::ZipArchive::new(Cursor::new(packed)).expect("a ZIP archive");
        let names: Vec<String> = archive.file_names().map(|name| name.expect("a name").into_owned()).collect();
        assert_eq!(names, ["README.txt", "profile.json", "mails.json"]);
        let mut text = String::new();
        archive.by_name("profile.json").expect("a file").read_to_string(&mut text).expect("text");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), files[0].1);
    }

    #[test]
    fn the_readme_names_every_file() {
        for name in super::super::export::FILES {
            assert!(README.contains(name), "{name}");
        }
    }
}
