//! `/openapi.json` of the real router, walked from end to end, and its viewer.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::people::People;
use crate::stack::{Http, Stack};

/// Every operation: method, path, description.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap();
        methods.iter().map(|(method, operation)| (method.clone(), path.clone(), operation))
    });
    all.collect()
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => {
            let found = document.pointer(reference.trim_start_matches('#'));
            resolve(document, found.unwrap_or_else(|| panic!("{reference} leads nowhere")))
        }
        None => value,
    }
}

/// What is wrong with a value, by the words of JSON Schema that our descriptions use. A word that is not known here would be
/// passed over, so it is refused.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = resolve(document, schema);
    let Some(words) = schema.as_object() else { return Ok(()) };
    let wrong = |what: &str| Err(format!("{at}: {what}: {value} by {schema}"));
    for (word, says) in words {
        let list = || says.as_array().unwrap().iter();
        match word.as_str() {
            "type" => {
                let kinds: Vec<&str> = says
                    .as_str()
                    .map_or_else(|| list().map(|kind| kind.as_str().unwrap()).collect(), |kind| vec![kind]);
                let is = |kind: &str| match kind {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("{at}: what is the type {other}?"),
                };
                if !kinds.into_iter().any(is) {
                    return wrong("another type");
                }
            }
            "properties" => {
                for (name, property) in says.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        check(document, property, value, &format!("{at}/{name}"))?;
                    }
                }
            }
            "required" => {
                if value.is_object() && !list().all(|name| value.get(name.as_str().unwrap()).is_some()) {
                    return wrong("something is missing");
                }
            }
            "additionalProperties" if says == &json!(false) => {
                let known = schema["properties"].as_object();
                let strange = value.as_object().into_iter().flat_map(|fields| fields.keys());
                if let Some(name) =
                    strange.into_iter().find(|name| !known.is_some_and(|known| known.contains_key(*name)))
                {
                    return wrong(&format!("`{name}` is not known"));
                }
            }
            "items" => {
                for (n, value) in value.as_array().into_iter().flatten().enumerate() {
                    check(document, says, value, &format!("{at}/{n}"))?;
                }
            }
            "allOf" => list().try_for_each(|part| check(document, part, value, at))?,
            "oneOf" | "anyOf" => {
                let fits: Vec<_> = list().map(|part| check(document, part, value, at)).collect();
                if fits.iter().all(Result::is_err) {
                    return wrong(&format!("none of these: {fits:?}"));
                }
            }
            "enum" if !list().any(|one| one == value) => return wrong("not one of these"),
            "minimum" if value.is_number() && value.as_f64() < says.as_f64() => return wrong("too small"),
            "maximum" if value.is_number() && value.as_f64() > says.as_f64() => return wrong("too large"),
            "const" if value != says => return wrong("another constant"),
            "uniqueItems" => {
                let items = value.as_array().map_or(&[][..], Vec::as_slice);
                if items.iter().enumerate().any(|(n, item)| items[..n].contains(item)) {
                    return wrong("twice the same");
                }
            }
            "pattern" if value.is_string() => {
                let pattern = regex::Regex::new(says.as_str().unwrap()).unwrap();
                if !pattern.is_match(value.as_str().unwrap()) {
                    return wrong("another pattern");
                }
            }
            "minLength" | "maxLength" | "minItems" | "maxItems" => {
                let length = value.as_str().map(|text| text.chars().count());
                let length = length.or(value.as_array().map(Vec::len)).unwrap_or_default() as u64;
                let bound = says.as_u64().unwrap();
                if value.is_null() || (if word.starts_with("min") { length >= bound } else { length <= bound }) {
                    continue;
                }
                return wrong("too short or too long");
            }
            "enum" | "const" | "minimum" | "maximum" | "pattern" | "additionalProperties" | "propertyNames" => {}
            "description" | "title" | "example" | "examples" | "default" | "format" | "deprecated" | "readOnly"
            | "writeOnly" => {}
            other => panic!("{at}: what does `{other}` say? {schema}"),
        }
    }
    Ok(())
}

/// Contents of JSON: where they stand, schema and example.
fn contents<'a>(document: &'a Value, operation: &'a Value) -> Vec<(String, &'a Value, &'a Value)> {
    let body = operation.get("requestBody").map(|body| ("the body".to_owned(), body));
    let responses = operation["responses"].as_object().unwrap();
    let answers = responses.iter().map(|(status, response)| (format!("the answer {status}"), response));
    let all = body.into_iter().chain(answers).flat_map(|(name, holder)| {
        let contents = resolve(document, holder)["content"].as_object();
        let json = contents.into_iter().flatten().filter(|(kind, _)| kind.ends_with("json") && !kind.contains("x-nd"));
        json.map(move |(_, content)| (name.clone(), &content["schema"], &content["example"]))
    });
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_says_all_that_its_users_need() {
    let stack = Stack::up(&[]);
    // Also for those who have no token.
    let document = Http { token: None, ..stack.http() }.get("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let tags = document["tags"].as_array().unwrap();
    let tags: BTreeSet<&str> =
        tags.iter().filter(|tag| tag["description"].is_string()).map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut ids = BTreeSet::new();
    let mut wrong = Vec::new();
    for (method, path, operation) in operations(&document) {
        let mut expect = |right: bool, what: &str| {
            if !right {
                wrong.push(format!("{method} {path}: {what}"));
            }
        };
        expect(operation["summary"].is_string(), "no sentence about it");
        expect(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "an id that another one has");
        let own = operation["tags"].as_array().unwrap();
        expect(own.iter().all(|tag| tags.contains(tag.as_str().unwrap())), "a tag that is not described");
        let answers = operation["responses"].as_object().unwrap();
        // Some send on to elsewhere.
        expect(answers.keys().any(|status| status.starts_with(['2', '3'])), "no answer that is a yes");
        expect(answers.contains_key("default"), "no answer that is a no");
        let open = operation["security"] == json!([{}]);
        let scoped = operation["security"][0]["token"][0].is_string();
        expect(open || scoped, "neither a scope nor openness");
        expect(open || (answers.contains_key("401") && answers.contains_key("403")), "nothing about tokens");
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let with_key = parameters.filter(|parameter| parameter["name"] == "Idempotency-Key").count() == 1;
        expect(with_key == (method != "get"), "an idempotency key where nothing changes, or none where something does");
        for (name, schema, example) in contents(&document, operation) {
            match example.is_null() {
                true => expect(false, &format!("{name} has no example")),
                false => {
                    let checked = check(&document, schema, example, &name);
                    expect(checked.is_ok(), &checked.err().unwrap_or_default());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ids.len() >= 40, "only {} operations", ids.len());
}

#[test]
fn the_check_of_examples_finds_what_is_wrong() {
    let document = json!({ "components": { "schemas": { "Name": { "type": "string" } } } });
    let schema = json!({ "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": { "a": { "$ref": "#/components/schemas/Name" }, "b": { "type": ["integer", "null"], "minimum": 1 },
            "c": { "type": "array", "uniqueItems": true, "maxItems": 2, "items": { "oneOf": [{ "type": "null" }, { "enum": ["x"] }] } } } });
    for (value, right) in [
        (json!({ "a": "" }), true),
        (json!({ "a": "", "b": null, "c": [null, "x"] }), true),
        (json!({ "b": 1 }), false),
        (json!({ "a": 1 }), false),
        (json!({ "a": "", "b": 0 }), false),
        (json!({ "a": "", "c": ["y"] }), false),
        (json!({ "a": "", "d": 1 }), false),
        (json!({ "a": "", "c": [null, null] }), false),
        (json!([]), false),
    ] {
        assert_eq!(check(&document, &schema, &value, "").is_ok(), right, "{value}");
    }
}

/// The schema that an operation has for an answer.
fn schema_of<'a>(document: &'a Value, operation: &'a Value, status: u16) -> &'a Value {
    let answers = &operation["responses"];
    let wide = format!("{}XX", status / 100);
    let names = [status.to_string(), wide, "default".to_owned()];
    let answer = names.iter().find_map(|name| answers.get(name)).expect("a default answer");
    let contents = resolve(document, answer)["content"].as_object().expect("an answer with a body");
    &contents.values().next().unwrap()["schema"]
}

#[tokio::test(flavor = "multi_thread")]
async fn real_answers_are_what_the_description_says() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    let document = http.get("/openapi.json").await;
    http.define("w", json!([{ "id": 1, "name": "a" }])).await;
    http.start("w", "r", json!({ "n": 1 })).await;
    http.run_in("r", &["running"]).await;
    let mut yes = 0;
    for (_, path, operation) in operations(&document).into_iter().filter(|(method, ..)| method == "get") {
        let real = match path.as_str() {
            "/v1/workflows/{id}" => path.replace("{id}", "w"),
            "/v1/workflows/runs/{id}" => path.replace("{id}", "r"),
            "/v1/events/{id}" => path.replace("{id}", "p1-1"),
            // For people: what no such thing is told.
            path => {
                path.replace("{id}", "x").replace("{tenant}", "x").replace("{name}", "x").replace("{provider}", "x")
            }
        };
        let response = http.request("GET", &real).send().await.unwrap();
        let kind = response.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap()).to_owned();
        if !kind.ends_with("json") {
            continue;
        }
        let status = response.status().as_u16();
        let answer: Value = response.json().await.unwrap();
        let checked = check(&document, schema_of(&document, operation, status), &answer, &format!("{real} {status}"));
        assert_eq!(checked, Ok(()), "{answer}");
        yes += usize::from(status == 200);
    }
    assert!(yes >= 15, "only {yes} routes had something to say");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_viewer_needs_no_token_and_nothing_from_elsewhere() {
    let stack = Stack::up(&[]);
    let strangers = Http { token: None, ..stack.http() };
    let page = strangers.request("GET", "/docs").send().await.unwrap();
    assert_eq!(page.url().path(), "/docs/");
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("script-src 'self';") && policy.contains("connect-src 'self'"), "{policy}");
    let page = page.text().await.unwrap();
    assert!(!page.contains("://"), "it fetches something from elsewhere: {page}");
    let scripts = page.matches("<script").count();
    assert_eq!(page.matches("<script src=\"./").count(), scripts, "the policy lets no script run inside the page");
    let sources = page.split("src=\"./").skip(1).chain(page.split("href=\"./").skip(1));
    let mut files: Vec<&str> = sources.map(|rest| rest.split('"').next().unwrap()).collect();
    files.sort_unstable();
    assert!(files.contains(&"swagger-ui-bundle.js") && files.contains(&"swagger-ui.css"), "{files:?}");
    for file in files {
        let response = strangers.request("GET", &format!("/docs/{file}")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{file}");
        assert!(response.headers()["cache-control"].to_str().unwrap().contains("max-age"));
    }
    let initializer = strangers.request("GET", "/docs/swagger-initializer.js").send().await.unwrap();
    assert!(initializer.text().await.unwrap().contains("\"/openapi.json\""));
    assert_eq!(strangers.json("GET", "/docs/nothing.js", None, 404).await["code"], "unknown_route");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_about_values_is_what_holds() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let ann = people.join("ann").await;
    let document = people.http.get("/openapi.json").await;
    let long = |letter: &str, count: usize| letter.repeat(count);
    let profile = "/v1/me";
    for (method, path, field, texts) in [
        (
            "PATCH",
            profile,
            "username",
            vec!["ab", "abc", "a.b", "a..b", "-ab", "ab_", "a b", "äbc", &long("a", 32), &long("a", 33)],
        ),
        ("PATCH", profile, "name", vec!["", "Ann", "a\tb", "a\u{85}b", &long("ö", 100), &long("ö", 101)]),
        ("PATCH", profile, "locale", vec!["", "de-AT", "de-", "de_AT", "d€", &long("a", 9), &long("ab-", 12)]),
        ("POST", "/v1/tenants", "name", vec!["", "Acme", "a\nb", &long("ö", 100), &long("ö", 101)]),
    ] {
        let operation = &document["paths"][path][method.to_lowercase()];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        for text in texts {
            let body = json!({ field: text });
            let said = check(&document, schema, &body, "the body");
            let request = ann.http.request(method, path).header("content-type", "application/json");
            let status = request.body(body.to_string()).send().await.unwrap().status();
            assert!(status.is_success() || status == 422, "{method} {path} {body}: {status}");
            assert_eq!(said.is_ok(), status.is_success(), "{method} {path} {body}: {status}, and {said:?}");
        }
    }
    let mut lists = 0;
    for (method, path, operation) in operations(&document) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let limit = parameters.map(|parameter| resolve(&document, parameter)).find(|found| found["name"] == "limit");
        // The development principal may ask for all that is not about a person.
        let Some(limit) = limit.filter(|_| method == "get" && !path.contains('{') && !path.starts_with("/v1/me"))
        else {
            continue;
        };
        lists += 1;
        let http = if path == "/v1/tenants" { ann.http.clone() } else { stack.http() };
        for value in [0, 1, 500, 501] {
            let said = check(&document, &limit["schema"], &json!(value), "limit");
            let status = http.request("GET", &format!("{path}?limit={value}")).send().await.unwrap().status();
            assert_eq!(said.is_ok(), status.is_success(), "{path}?limit={value}: {status}, and {said:?}");
        }
    }
    assert!(lists > 4, "{lists} lists have a limit");
}
