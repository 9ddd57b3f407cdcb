//! Examples of bodies and answers. A route may bring its own; the others are put together from the examples of their fields,
//! so that there is one everywhere, and none that its schema has grown away from.

use serde_json::{Map, Value, json};

/// Schemas may contain themselves.
const DEEPEST: usize = 12;

/// Gives every body and answer of JSON an example.
pub(crate) fn complete(description: &mut Value) {
    let schemas = description["components"]["schemas"].clone();
    let mut holders: Vec<&mut Value> = Vec::new();
    for (name, part) in description.as_object_mut().into_iter().flatten() {
        match name.as_str() {
            "paths" => {
                let operations = values(part).into_iter().flat_map(values);
                let parts = operations.filter_map(Value::as_object_mut).flatten();
                for (name, part) in parts {
                    match name.as_str() {
                        "requestBody" => holders.push(part),
                        "responses" => holders.extend(values(part)),
                        _ => {}
                    }
                }
            }
            "components" => holders.extend(part.get_mut("responses").into_iter().flat_map(values)),
            _ => {}
        }
    }
    for holder in holders {
        let Some(Value::Object(kinds)) = holder.get_mut("content") else { continue };
        for (kind, content) in kinds {
            let json = kind == "application/json" || kind.ends_with("+json");
            let (has, schema) = (content.get("example").or(content.get("examples")).is_some(), content.get("schema"));
            if let (true, false, Some(schema)) = (json, has, schema)
                && let Some(example) = example(schema, &schemas, DEEPEST)
            {
                content["example"] = example;
            }
        }
    }
}

fn values(value: &mut Value) -> Vec<&mut Value> {
    match value {
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    }
}

/// A value that a schema describes; `None` where it cannot end.
fn example(schema: &Value, schemas: &Value, depth: usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return example(&schemas[name], schemas, depth);
    }
    let first = |name| schema.get(name).and_then(|list| list.get(0));
    // Also when it says null.
    let said = schema.get("example").or(first("examples")).or(schema.get("const")).or(schema.get("default"));
    if let Some(said) = said.or(first("enum")) {
        return Some(said.clone());
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let parts = parts.iter().filter_map(|part| example(part, schemas, depth));
        let fields = parts.filter_map(|part| part.as_object().cloned()).flatten();
        return Some(Value::Object(fields.collect()));
    }
    for one in ["oneOf", "anyOf"] {
        if let Some(parts) = schema[one].as_array() {
            let real = parts.iter().filter(|part| part["type"] != "null");
            return real.chain(parts).find_map(|part| example(part, schemas, depth));
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_default(),
        kind => kind.clone(),
    };
    match kind.as_str() {
        Some("object") => {
            let properties = schema["properties"].as_object().cloned().unwrap_or_default();
            let fields = properties
                .iter()
                .map(|(name, schema)| (name.clone(), example(schema, schemas, depth).unwrap_or_default()));
            Some(Value::Object(fields.collect::<Map<_, _>>()))
        }
        Some("array") => Some(Value::Array(example(&schema["items"], schemas, depth).into_iter().collect())),
        Some("string") => Some(json!(match schema["format"].as_str() {
            Some("date-time") => "2026-01-31T12:00:00Z",
            Some("date") => "2026-01-31",
            Some("uuid") => "0198c0de-0000-7000-8000-000000000000",
            Some("uri") => "https://example.org/",
            Some("email") => "ann@example.org",
            _ => "text",
        })),
        Some("integer") => Some(schema["minimum"].as_i64().map_or(json!(1), |least| json!(least.max(1)))),
        Some("number") => Some(json!(1.5)),
        Some("boolean") => Some(json!(true)),
        Some("null") => Some(Value::Null),
        // Any JSON.
        _ => Some(json!({})),
    }
}
