// Shared by the build script and a test, so its first lines are no module documentation.
//
// Coarse on purpose: a comment changes the hash and costs folding long streams once more; code that is overlooked would
// cost wrong decisions.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What events become states through: the fold and how it is written out, the facts, the deciders, and the libraries,
/// features and compiler below them.
pub(crate) const PATHS: [&str; 7] =
    ["kernel", "events", "runtime", "services", "Cargo.lock", "Cargo.toml", "rust-toolchain.toml"];

/// SHA-256 of every source file's name and content, shortened to 16 bytes, in hexadecimal digits.
pub(crate) fn hash(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for path in PATHS {
        collect(&root.join(path), &mut files)?;
    }
    // The order in which a file system lists its files is its own affair.
    files.sort();
    let mut digest = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        let content = std::fs::read(&file)?;
        digest.update(name.as_bytes());
        digest.update([0]);
        digest.update((content.len() as u64).to_be_bytes());
        digest.update(&content);
    }
    Ok(digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?.path();
        let hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden {
            collect(&entry, files)?;
        }
    }
    Ok(())
}
