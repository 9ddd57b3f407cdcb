//! Tells the binary the hash of the code that decides how events become state.

mod sources {
    include!("src/platform/fold/sources.rs");
}

fn main() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace");
    for path in sources::PATHS {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/platform/fold/sources.rs");
    let hash = sources::hash(root).unwrap_or_else(|error| panic!("the sources cannot be hashed: {error}"));
    println!("cargo::rustc-env=AIRSTREAM_FOLD_HASH={hash}");
}
