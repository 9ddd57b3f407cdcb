use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kernel::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::allocator::held_by;
use super::*;

/// What a state is said to weigh, and what it was given by the allocator when it was read.
fn weighed<S: Serialize + DeserializeOwned + Send + Sync + 'static>(written: &Value) -> (usize, usize) {
    let text = written.to_string();
    let (state, held) = held_by(|| Box::new(serde_json::from_str::<S>(&text).expect("a sample")) as BoxState);
    (Weigher::walking::<S>().weigh(&state, 0), held)
}

/// Not much less than it takes, so that the budget holds; not much more, so that it can be used.
#[track_caller]
fn assert_weighed<S: Serialize + DeserializeOwned + Send + Sync + 'static>(what: &str, written: &Value) {
    let (weight, held) = weighed::<S>(written);
    assert!(weight * 10 >= held * 8 && weight * 10 <= held * 14, "{what} weighs {weight} and takes {held}");
}

/// A bit of everything that states are made of.
#[derive(Serialize, Deserialize)]
enum State {
    Open(Box<Open>),
    Closed { by: Option<String>, at: Timestamp },
}

#[derive(Serialize, Deserialize)]
struct Open {
    plan: Arc<Plan>,
    versions: BTreeMap<u32, Plan>,
    counts: HashMap<String, u64>,
    last: Option<Arc<Value>>,
    due_at: Option<Timestamp>,
}

#[derive(Serialize, Deserialize)]
struct Plan {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    about: Option<String>,
    parts: Vec<Part>,
}

#[derive(Serialize, Deserialize)]
struct Part {
    id: String,
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
enum Kind {
    Pause(u64),
    Call { url: String, headers: BTreeMap<String, String>, body: Option<Value>, patience: (u32, f64) },
    Nothing,
}

fn plan(parts: usize) -> Value {
    let part = |number: usize| match number % 3 {
        0 => json!({ "id": format!("part-{number}"), "kind": { "Pause": 1_000 } }),
        1 => json!({ "id": format!("part-{number}"), "kind": { "Call": {
            "url": "https://example.com/things", "headers": { "accept": "text/plain" },
            "body": { "note": "x".repeat(100) }, "patience": [3, 0.5],
        } } }),
        _ => json!({ "id": format!("part-{number}"), "kind": "Nothing" }),
    };
    json!({ "name": "a plan", "parts": (0..parts).map(part).collect::<Vec<_>>() })
}

fn open(parts: usize) -> Value {
    json!({ "Open": {
        "plan": plan(parts), "versions": { "1": plan(1), "2": plan(parts) }, "counts": { "a": 1, "b": 2, "c": 3 },
        "last": { "status": 200, "body": ["one", "two", { "three": null }] }, "due_at": "2026-11-20T12:00:00Z",
    } })
}

#[test]
fn a_state_weighs_what_it_takes() {
    for parts in [1, 2, 5, 20, 100] {
        assert_weighed::<State>(&format!("a state of {parts} parts"), &open(parts));
    }
    assert_weighed::<State>("a small state", &json!({ "Closed": { "by": "ann", "at": "2026-11-20T12:00:00Z" } }));
}

#[test]
fn json_weighs_what_it_takes() {
    let object = |keys: usize| (0..keys).map(|key| (format!("key-{key:03}"), json!(key))).collect::<Value>();
    for (what, value) in [
        ("a text", json!("x".repeat(3_000))),
        ("many texts", json!(["short"; 1_000].to_vec())),
        ("many numbers", json!((0..1_000).collect::<Vec<_>>())),
        ("an object of one", object(1)),
        ("an object of eleven", object(11)),
        ("an object of twelve", object(12)),
        ("an object of three hundred", object(300)),
        ("many small objects", json!(vec![json!({ "a": 1 }); 500])),
        ("a list in a list in a list", json!([[[[[["deep"]]]]]])),
    ] {
        assert_weighed::<Value>(what, &value);
    }
}

#[test]
fn what_stands_behind_a_pointer_counts() {
    #[derive(Serialize, Deserialize)]
    struct Pair<T> {
        one: T,
        two: T,
    }
    let pair = json!({ "one": [1, 2, 3, 4], "two": [5, 6, 7, 8] });
    assert_weighed::<Pair<[u64; 4]>>("what stands there itself", &pair);
    assert_weighed::<Pair<Box<[u64; 4]>>>("what stands behind a box", &pair);
    assert_weighed::<Pair<Option<Arc<[u64; 4]>>>>("what stands behind a counter", &pair);
}

#[test]
fn a_state_that_owns_nothing_weighs_what_its_type_says() {
    let state: BoxState = Box::new(7_u64);
    for weigher in [Weigher::of::<u64>(), Weigher::walking::<u64>()] {
        assert_eq!(weigher.weigh(&state, 1_000_000), block(size_of::<u64>()));
    }
}

#[test]
fn a_state_that_nobody_can_look_into_is_guessed_from_its_history() {
    struct Refuses(#[allow(dead_code, reason = "it owns something")] String);
    impl Serialize for Refuses {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let state: BoxState = Box::new(Refuses("text".to_owned()));
    for weigher in [Weigher::of::<Refuses>(), Weigher::walking::<Refuses>()] {
        assert!(weigher.weigh(&state, 1_000) >= 1_000 * GUESSED_PER_BYTE);
    }
}
