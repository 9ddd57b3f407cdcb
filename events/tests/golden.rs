//! One sample of every event version, kept for ever: what was written once can always be read.

use std::collections::BTreeSet;
use std::path::PathBuf;

use events::CATALOGUE;
use serde_json::Value;
use serde_json::value::RawValue;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Every sample: its type, its version and its text.
fn samples() -> Vec<(String, u32, String)> {
    let entries = std::fs::read_dir(folder()).expect("events/golden cannot be listed");
    let mut samples: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("events/golden cannot be listed").path();
            let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            let name = file.strip_suffix(".json").and_then(|name| name.rsplit_once(".v"));
            let parts = name.and_then(|(type_name, version)| Some((type_name.to_owned(), version.parse().ok()?)));
            let (type_name, version) = parts.unwrap_or_else(|| panic!("golden/{file} is not <type>.v<version>.json"));
            (type_name, version, std::fs::read_to_string(&path).expect("a sample cannot be read"))
        })
        .collect();
    samples.sort();
    samples
}

#[test]
fn every_current_version_has_a_sample() {
    let present: BTreeSet<(String, u32)> = samples().into_iter().map(|(name, version, _)| (name, version)).collect();
    let needed = CATALOGUE.iter().flat_map(|facts| facts.types).map(|(name, version)| ((*name).to_owned(), *version));
    let missing: Vec<String> = needed
        .filter(|one| !present.contains(one))
        .map(|(name, version)| format!("golden/{name}.v{version}.json"))
        .collect();
    assert!(
        missing.is_empty(),
        "No sample of a current event version: {missing:?}.\n\
         Write each by hand as the event's `data`, with every optional field present, and never change it again: \
         it stands for events that are in people's logs."
    );
}

#[test]
fn every_version_before_the_current_one_has_a_sample_too() {
    let present: BTreeSet<(String, u32)> = samples().into_iter().map(|(name, version, _)| (name, version)).collect();
    for (name, current) in CATALOGUE.iter().flat_map(|facts| facts.types) {
        for version in 1..*current {
            let kept = present.contains(&((*name).to_owned(), version));
            assert!(kept, "golden/{name}.v{version}.json is gone; samples of old versions stay for ever");
        }
    }
}

#[test]
fn every_sample_can_be_read_and_the_current_ones_are_written_the_same() {
    for (type_name, version, text) in samples() {
        let sample: Box<RawValue> = serde_json::from_str(&text).expect("a sample is JSON");
        let known = CATALOGUE.iter().find_map(|facts| {
            let (_, current) = facts.types.iter().find(|(name, _)| *name == type_name)?;
            Some((facts, *current))
        });
        let (facts, current) = known.unwrap_or_else(|| {
            panic!("golden/{type_name}.v{version}.json has no event type: types are never removed while logs have them")
        });
        let read = (facts.modernise)(&type_name, version, &sample);
        let read = read.unwrap_or_else(|error| panic!("golden/{type_name}.v{version}.json cannot be read: {error}"));
        if version == current {
            let as_value = |text: &str| serde_json::from_str::<Value>(text).expect("a sample is JSON");
            assert_eq!(as_value(read.get()), as_value(&text), "{type_name} is written differently from its sample");
        }
    }
}

#[test]
fn every_type_is_named_after_its_category_and_only_once() {
    let mut seen = BTreeSet::new();
    for facts in CATALOGUE {
        for (name, version) in facts.types {
            assert!(name.starts_with(&format!("{}.", facts.category)), "{name} is not of {}", facts.category);
            assert!(seen.insert(*name), "{name} is listed twice");
            assert!(*version >= 1, "{name}: versions count from 1");
        }
    }
}
