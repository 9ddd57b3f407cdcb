//! Which code folds events into states: snapshots that other code made are not used.

/// The hash that the build script made.
pub(super) const HASH: &str = env!("AIRSTREAM_FOLD_HASH");

#[cfg(test)]
mod sources;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{HASH, sources};

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace")
    }

    #[test]
    fn the_hash_in_the_binary_is_that_of_the_sources_as_they_are() {
        assert_eq!(HASH, sources::hash(root()).expect("the sources can be read"), "the build script did not run again");
    }

    #[test]
    fn every_crate_that_a_decider_is_made_of_is_hashed() {
        let hashed = |room: &str| sources::PATHS.iter().any(|path| room.starts_with(path));
        let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
        let members =
            manifest["workspace"]["members"].as_array().unwrap().iter().map(|member| member.as_str().unwrap());
        // A service stands on these; the servers' adapters and the routes have no part in folding.
        let without = ["nats", "projections", "rest", "vault", "embedded", "airstream", "tests", "tests/checker"];
        for member in members.filter(|member| !without.contains(member)) {
            assert!(hashed(member), "{member} is a new room: hash it, or say here that it has no part in folding");
        }
    }

    #[test]
    fn any_change_of_any_source_changes_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        for path in sources::PATHS {
            let path = folder.path().join(path);
            match path.extension() {
                Some(_) => fs::write(path, "x").unwrap(),
                None => {
                    fs::create_dir_all(path.join("a/src")).unwrap();
                    fs::write(path.join("a/src/lib.rs"), "fn one() {}").unwrap();
                }
            }
        }
        let hash = || sources::hash(folder.path()).unwrap();
        let mut seen = vec![hash()];
        let mut differs = |what: &str| {
            assert!(!seen.contains(&hash()), "{what} changed nothing");
            seen.push(hash());
        };
        let file = folder.path().join("kernel/a/src/lib.rs");
        fs::write(&file, "fn two() {}").unwrap();
        differs("another content");
        fs::rename(&file, file.with_file_name("main.rs")).unwrap();
        differs("another name");
        fs::write(folder.path().join("services/a/src/more.sql"), "").unwrap();
        differs("one more file");
        fs::write(folder.path().join("Cargo.lock"), "y").unwrap();
        differs("another version of a library");
        // The same bytes, cut into files differently.
        fs::write(file.with_file_name("main.rs"), "fn two() ").unwrap();
        differs("a shorter file");
        fs::write(file.with_file_name("main2.rs"), "{}").unwrap();
        differs("its rest in another file");
        assert_eq!(hash(), *seen.last().unwrap(), "the same sources have two hashes");
    }
}
