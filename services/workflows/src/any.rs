//! Arbitrary input, for property tests.

use proptest::prelude::*;
use serde_json::{Value, json};

/// Any JSON, with a taste for the words of the format.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "steps",
        "id",
        "name",
        "kind",
        "wait",
        "http",
        "url",
        "method",
        "headers",
        "retry",
        "max",
        "timeout",
        "until",
        "task",
        "pass",
        "output",
        "params",
        "labels",
        "workflow_id",
        "wf_12345",
        "GET",
        "https://a/",
        "a",
        "1",
        "step",
        "attempt",
        "worker",
        "error",
        "type",
        "message",
        "retry_after_seconds",
        "workflow",
        "input",
        "version",
        "reason",
    ]);
    let key = prop_oneof![4 => word.clone().prop_map(str::to_owned), 1 => any::<String>()];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..5_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    scalar.prop_recursive(5, 60, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Bodies as nobody should send them, and some that are nearly right.
pub(crate) fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        any_json().prop_map(|value| value.to_string().into_bytes()),
        any_json().prop_map(|value| json!({ "steps": [value] }).to_string().into_bytes()),
        any_json().prop_map(|value| json!({ "step": "1", "attempt": 1, "output": value }).to_string().into_bytes()),
        any_json().prop_map(|value| json!({ "step": "1", "attempt": 1, "error": value }).to_string().into_bytes()),
        any_json().prop_map(|value| json!({ "workflow": "wf", "input": value }).to_string().into_bytes()),
    ]
}
