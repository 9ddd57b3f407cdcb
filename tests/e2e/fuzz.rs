//! Requests that nobody has thought of, made from the description by schemathesis: examples, limits and their neighbours, random
//! ones. None may make the server fail, get in without a token, or show one tenant what is another's.
//!
//! `AIRSTREAM_FUZZ_EXAMPLES=1000` asks so many times of each operation (half an hour), `AIRSTREAM_FUZZ_SEED` differently.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use stories::guests::python;

use crate::people::{People, Person};
use crate::stack::{Http, Said, Stack};

const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// Random requests to each operation, besides those that the description itself calls for.
const EXAMPLES: u32 = 3;

/// One that no example of the description has. No operation is left out: to erase somebody takes their address, to change how they
/// sign in takes this, the only owner of a tenant cannot leave it, and whose session has ended gets another one (`hooks.py`).
const PASSWORD: &str = "seven otters juggle 41 lamps";

fn number(variable: &str, otherwise: u32) -> u32 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// The owner of a tenant: how they log in to work there.
async fn owner(people: &People, name: &str) -> Value {
    let email = format!("{name}@example.org");
    let body = json!({ "email": email, "username": name, "password": PASSWORD });
    people.post("/v1/auth/register", body, 202).await;
    people.confirm(&email).await;
    let login = json!({ "login": email, "password": PASSWORD });
    let person = Person::of(&people.http, &people.post("/v1/auth/login", login, 200).await);
    let tenant = person.create_tenant(name).await;
    // Something to find.
    person.within(&tenant).await.http.define("w", json!([{ "id": 1, "name": "a" }])).await;
    json!({ "login": email, "password": PASSWORD, "tenant": tenant })
}

/// How many answers there were, by route and status, as the server itself has counted.
async fn answers(http: &Http) -> Vec<(String, u16, u64)> {
    let page = http.request("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    let lines = page.lines().filter(|line| line.starts_with("airstream_http_request_duration_seconds_count{"));
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    let counts = lines.map(|line| {
        let route = format!("{} {}", label(line, "method"), label(line, "route"));
        (route, label(line, "status").parse().unwrap(), line.rsplit_once(' ').unwrap().1.parse().unwrap())
    });
    counts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_makes_the_server_fail_or_shows_what_is_anothers() {
    let stack = Stack::up_with(
        &[],
        &[("AIRSTREAM__LIMITS__ENABLED", "false"), ("AIRSTREAM__HTTP__TRUSTED_PROXIES", "127.0.0.1")],
    );
    let people = People::of(&stack);
    let logins = json!({ "alice": owner(&people, "alice").await, "bob": owner(&people, "bob").await });
    let (examples, seed) = (number("AIRSTREAM_FUZZ_EXAMPLES", EXAMPLES), number("AIRSTREAM_FUZZ_SEED", 1));
    eprintln!("schemathesis with {examples} examples by the seed {seed}");

    let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e/fuzz/hooks.py").canonicalize().unwrap();
    // Without a tenant and a workflow that are there most requests about them would get no further than 403 and 404.
    let (wfc, settings) = (stack.folder().join("people.json"), stack.folder().join("schemathesis.toml"));
    let text = format!(
        "hooks = {hooks:?}\nrequest-timeout = 60\n[auth.wfc]\npath = {wfc:?}\nuser = \"alice\"\n\
         peers = [\"alice\", \"bob\"]\nrefresh_interval = 240\n\
         [parameters]\n\"path.tenant\" = {}\n\
         [[operations]]\ninclude-path = \"/v1/workflows/{{id}}/runs\"\nparameters = {{ \"path.id\" = \"w\" }}\n",
        logins["alice"]["tenant"]
    );
    std::fs::write(&settings, text).unwrap();
    let mut command = Command::new(python(&[SCHEMATHESIS]).with_file_name("st"));
    command.current_dir(stack.folder()).stdin(Stdio::null());
    command.env("AIRSTREAM_URL", &people.http.url).env("AIRSTREAM_LOGINS", logins.to_string());
    command.env("AIRSTREAM_WFC", &wfc).env("NO_COLOR", "1");
    command.arg("--config-file").arg(&settings).arg("run").arg(format!("{}/openapi.json", people.http.url));
    command.args(["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--generation-database", "none"]);
    command.args(["--checks", "not_a_server_error,ignored_auth,object_level_authorization"]);
    command.args(["--max-examples", &examples.to_string(), "--seed", &seed.to_string()]);
    let said: Said = command.output().unwrap().into();
    assert_eq!(said.code, 0, "with {examples} examples by the seed {seed}:\n{}\n{}", said.out, said.err);

    // And it did what it was to do.
    let document = people.http.get("/openapi.json").await;
    let paths = document["paths"].as_object().unwrap().values();
    let operations: usize = paths.map(|methods| methods.as_object().unwrap().len()).sum();
    assert!(said.out.contains(&format!("Tested: {operations}\n")), "{}", said.out);
    let answers = answers(&stack.http()).await;
    let failed: Vec<_> = answers.iter().filter(|(_, status, _)| *status >= 500).collect();
    assert!(failed.is_empty(), "{failed:?}");
    for route in ["GET /v1/workflows", "GET /v1/tenants/{tenant}", "POST /v1/workflows/{id}/runs", "POST /v1/api-keys"]
    {
        let status = if route.starts_with("GET") { 200 } else { 201 };
        let done = answers.iter().any(|(found, of, _)| found == route && *of == status);
        assert!(done, "no {route} was answered with {status}: nobody got behind the door");
    }
    let logged_in = answers.iter().find(|(route, status, _)| route == "POST /v1/auth/login" && *status == 200);
    assert!(logged_in.is_some_and(|(_, _, count)| *count >= 4), "one of both did not ask: {logged_in:?}");
    let all: u64 = answers.iter().map(|(_, _, count)| count).sum();
    eprintln!("{all} answers, and none of them a failure");
}
