//! One spelling for every JSON value, for digests.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

/// JSON with object keys sorted and no blanks. Sorts by itself: whether `serde_json` does is a feature that any
/// dependency can switch off, and digests are in the log for ever.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, to: &mut String) {
    match value {
        Value::Array(items) => {
            to.push('[');
            for (index, item) in items.iter().enumerate() {
                to.push_str(if index == 0 { "" } else { "," });
                write(item, to);
            }
            to.push(']');
        }
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            to.push('{');
            for (index, (key, value)) in fields.into_iter().enumerate() {
                let _ = write!(to, "{}{}:", if index == 0 { "" } else { "," }, Value::from(key.as_str()));
                write(value, to);
            }
            to.push('}');
        }
        scalar => {
            let _ = write!(to, "{scalar}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn keys_are_sorted_at_every_depth_and_strings_stay_escaped() {
        let value = json!({ "b": [{ "z": 1, "a": null }], "a": "\"\n" });
        assert_eq!(super::canonical(&value), r#"{"a":"\"\n","b":[{"a":null,"z":1}]}"#);
    }
}
