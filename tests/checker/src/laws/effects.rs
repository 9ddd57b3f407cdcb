//! An effect is recorded once, belongs to a stream of the log, and carries one idempotency key, its own.

use std::collections::{BTreeMap, BTreeSet};

use crate::log::History;
use crate::{Evidence, Found};

const ONCE: &str = "an effect is recorded once";
const KEY: &str = "an effect has one key";

type Key<'a> = (&'a str, &'a str, &'a str);

pub(crate) fn check(evidence: &Evidence, history: &History, found: &mut Found) {
    let mut recorded: BTreeSet<Key<'_>> = BTreeSet::new();
    for effect in &evidence.effects {
        let key = (effect.consumer.as_str(), effect.stream.as_str(), effect.name.as_str());
        if !recorded.insert(key) {
            let sentence =
                format!("`{}` of `{}` is recorded twice for `{}`", effect.name, effect.stream, effect.consumer);
            found.add(ONCE, sentence);
        }
        if !history.has(&effect.stream) {
            let sentence =
                format!("`{}` is recorded for `{}`, which the log does not have", effect.name, effect.stream);
            found.add("an effect comes from the log", sentence);
        }
    }
    let mut keys: BTreeMap<Key<'_>, &str> = BTreeMap::new();
    let mut owners: BTreeMap<&str, Key<'_>> = BTreeMap::new();
    for performed in &evidence.performed {
        let effect = (performed.consumer.as_str(), performed.stream.as_str(), performed.name.as_str());
        let before = *keys.entry(effect).or_insert(&performed.key);
        if before != performed.key {
            let sentence = format!("{effect:?} was done with the key `{before}` and again with `{}`", performed.key);
            found.add(KEY, sentence);
        }
        let owner = *owners.entry(&performed.key).or_insert(effect);
        if owner != effect {
            found.add(KEY, format!("{effect:?} was done with the key `{}` of {owner:?}", performed.key));
        }
    }
}
