//! What somebody finds who has stolen the database and the log, and not the master key.

use serde_json::json;
use sqlx::Row;

use crate::people::{PASSWORD, People, Person};
use crate::stack::Stack;

/// Every row of every table, as text.
async fn rows(stack: &Stack) -> String {
    let mut postgres = stack.postgres().await;
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
                  WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut postgres).await.unwrap();
    assert!(tables.iter().any(|table| table == "identity.codes"), "{tables:?}");
    let mut text = String::new();
    for table in tables {
        let all = sqlx::AssertSqlSafe(format!("SELECT row_to_json(t)::text FROM {table} AS t"));
        for row in sqlx::query(all).fetch_all(&mut postgres).await.unwrap() {
            text.push_str(&format!("{table} {}\n", row.get::<String, _>(0)));
        }
    }
    text
}

/// Every byte that NATS has written.
fn messages(folder: &std::path::Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => text.push_str(&messages(&path)),
            false => text.push_str(&String::from_utf8_lossy(&std::fs::read(&path).unwrap())),
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_rows_nor_messages_say_who_anybody_is_or_let_anybody_in() {
    let stack = Stack::up(&[]);
    let people = People::of(&stack);
    let body = json!({ "email": "zebra@giraffe.example", "username": "okapi", "password": PASSWORD, "name": "Quagga" });
    people.post("/v1/auth/register", body, 202).await;
    let mut secrets: Vec<String> =
        ["zebra", "giraffe", "okapi", "quagga", PASSWORD, "127.0.0.1", "tapir"].map(str::to_owned).into();
    secrets.push(people.mailbox.letter("zebra@giraffe.example", "Confirm").await.word("aco_"));
    people.confirm("zebra@giraffe.example").await;
    let person = people.log_in("okapi").await;
    people.post("/v1/auth/password/forgot", json!({ "email": person.email }), 202).await;
    secrets.push(people.mailbox.letter(&person.email, "Set a new password").await.word("apw_"));
    let change = json!({ "email": "tapir@giraffe.example", "password": PASSWORD });
    person.http.json("POST", "/v1/me/email", Some(change), 202).await;
    secrets.push(people.mailbox.letter("tapir@giraffe.example", "Confirm your new").await.word("aco_"));
    let setup = person.http.json("POST", "/v1/auth/totp/setup", Some(json!({ "password": PASSWORD })), 200).await;
    secrets.push(setup["secret"].as_str().unwrap().to_owned());
    let device = people.post("/v1/auth/device", json!({ "client_name": "tapir's fridge" }), 200).await;
    for name in ["device_code", "user_code"] {
        secrets.push(device[name].as_str().unwrap().to_owned());
    }
    secrets.push(device["user_code"].as_str().unwrap().replace('-', ""));
    let refreshed = people.post("/v1/auth/refresh", json!({ "refresh_token": person.refresh_token }), 200).await;
    let next = Person::of(&people.http, &refreshed);
    for one in [&person, &next] {
        secrets.extend([one.refresh_token.clone(), one.http.token.clone().unwrap()]);
    }
    people.post("/v1/auth/login", json!({ "login": "okapi", "password": "a wrong okapi guess" }), 401).await;

    let (rows, messages) = (rows(&stack).await, messages(&stack.data_dir().join("nats")));
    assert!(rows.contains(&person.id) && messages.contains(&person.id), "this is not what was to be looked through");
    assert!(messages.contains("person.registered"), "the log is compressed, or elsewhere");
    for (place, text) in [("rows", rows.to_lowercase()), ("messages", messages.to_lowercase())] {
        for secret in &secrets {
            let found = text.lines().find(|line| line.contains(&secret.to_lowercase()));
            // The development stack's own addresses are nobody's.
            let found = found.filter(|line| secret != "127.0.0.1" || line.starts_with("identity."));
            assert!(found.is_none(), "`{secret}` stands in the {place}: {:.500}", found.unwrap());
        }
    }
    // What the process has said meanwhile stays in files for longer than anybody remembers.
    let mut logs = String::new();
    for entry in std::fs::read_dir(stack.data_dir().join("log")).unwrap() {
        logs.push_str(&String::from_utf8_lossy(&std::fs::read(entry.unwrap().path()).unwrap()).to_lowercase());
    }
    for secret in secrets.iter().filter(|secret| *secret != "127.0.0.1") {
        let found = logs.lines().find(|line| line.contains(&secret.to_lowercase()));
        assert!(found.is_none(), "`{secret}` stands in a log: {}", found.unwrap());
    }
}
