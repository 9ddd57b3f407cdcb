//! `airstream bench`: each measurement measures something, on servers that are gone afterwards.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::stack::Stack;

/// Runs one with very little to do, and gives the machine's facts and its results.
fn bench(arguments: &[&str]) -> (Value, Vec<Value>) {
    let stack = Stack::stopped();
    let home = stack.data_dir();
    // The servers of a measurement are put beside the data directory's content.
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o755)).unwrap();
    let arguments: Vec<&str> = ["bench"].iter().chain(arguments).chain(&["--rounds", "2", "--json"]).copied().collect();
    let said = stack.run(&arguments);
    assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0, "{arguments:?} left something behind");
    assert_eq!(processes_of(&home), BTreeSet::new(), "{arguments:?} left processes behind");
    let document = said.json();
    (document["machine"].clone(), document["results"].as_array().unwrap().clone())
}

/// Processes that name a folder in their command line.
fn processes_of(folder: &std::path::Path) -> BTreeSet<String> {
    let folder = folder.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(&folder)).collect()
}

fn check(results: &[Value], names: &[&str]) {
    let found: Vec<&str> = results.iter().map(|result| result["name"].as_str().unwrap()).collect();
    assert_eq!(found, names);
    for result in results {
        let number = |key: &str| result[key].as_f64();
        assert!(number("ours").is_some_and(|ours| ours > 0.0), "{result:#}");
        assert!(result["unit"].as_str().is_some_and(|unit| !unit.is_empty()), "{result:#}");
        assert!(result["detail"].is_object() && result["reach"].is_string(), "{result:#}");
        // What has a limit has both sides' figures, and their ratio lies within what the rounds gave.
        if let Some(limit) = number("limit") {
            let within = result["detail"]["ratio_spread"].as_array().unwrap();
            let ratio = number("ratio").unwrap();
            assert!(limit > 0.0 && result["met"].is_boolean() == (result["reach"] != ""), "{result:#}");
            assert!((within[0].as_f64().unwrap()..=within[1].as_f64().unwrap()).contains(&ratio), "{result:#}");
        }
    }
}

#[test]
fn appends_and_their_latency_are_measured_on_the_same_log() {
    let few = ["--callers", "20", "--streams", "250", "--seconds", "0.2"];
    let (machine, results) = bench(&[["append"].as_slice(), &few].concat());
    check(&results, &["append"]);
    let detail = &results[0]["detail"];
    assert_eq!(detail["ours_payload_bytes"], detail["limit_payload_bytes"], "both sides write the same: {detail:#}");
    for fact in ["cores", "memory_mib", "fsyncs_per_second"] {
        assert!(machine[fact].as_f64().is_some_and(|value| value > 0.0), "{fact}: {machine:#}");
    }
    assert_eq!((&machine["sync"], machine["load_after"].as_array().unwrap().len()), (&"always".into(), 3));

    let (machine, results) =
        bench(&[["append"].as_slice(), &few, &["--through", "door", "--sync", "default"]].concat());
    check(&results, &["append (through the door)"]);
    assert_eq!(machine["sync"], "default");

    let (_, results) = bench(&["latency", "--seconds", "0.2"]);
    check(&results, &["latency p50", "latency p99"]);
}

#[test]
fn projections_are_measured_against_the_rows_that_they_write() {
    let (_, results) = bench(&["project", "--size", "300"]);
    check(&results, &["project runs", "project commits"]);
    assert_eq!(results[1]["detail"]["rows_written"], 300);
    let (_, results) = bench(&["rebuild", "--size", "300"]);
    check(&results, &["rebuild runs", "rebuild commits"]);
    // 60 runs of two steps.
    assert_eq!((&results[0]["detail"]["rows"], &results[1]["detail"]["rows"]), (&180.into(), &300.into()));
}

#[test]
fn folding_and_the_way_to_a_row_and_starting_are_measured() {
    let (_, results) = bench(&["fold", "--size", "50"]);
    check(&results, &["fold", "fold runs"]);
    let (_, results) = bench(&["e2e", "--seconds", "0.5", "--rate", "100"]);
    check(&results, &["e2e p50", "e2e p99"]);
    assert_eq!(results[1]["detail"]["commands"], 45, "a tenth of them is not counted");
    let (_, results) = bench(&["start"]);
    check(&results, &["start, nothing there", "start, with data"]);
}

#[test]
fn memory_is_measured_beside_a_log_of_many_streams() {
    let (_, results) = bench(&["memory", "--streams", "2000"]);
    check(&results, &["memory", "memory of nats-server", "memory of postgres"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_into_a_log_that_is_somebody_elses() {
    let servers = stories::Servers::with_topology().await.unwrap();
    let stack = Stack::stopped();
    let mut command = stack.command();
    command.env("AIRSTREAM__NATS__URL", &servers.nats_url).env("AIRSTREAM__POSTGRES__URL", &servers.postgres_url);
    command.env("AIRSTREAM__NATS__USER", &servers.credentials.user);
    command.env("AIRSTREAM__NATS__PASSWORD", &servers.credentials.password);
    let few = ["bench", "append", "--callers", "20", "--streams", "250", "--seconds", "0.2", "--rounds", "2", "--json"];
    let refused: crate::stack::Said = command.args(few).output().unwrap().into();
    assert!(refused.code == 1 && refused.err.contains("EVENTS"), "{} {}", refused.code, refused.err);
    // In an account without streams it makes its own, and removes them.
    servers.nats.jetstream().delete_stream(nats::topology::EVENTS).await.unwrap();
    servers.nats.jetstream().delete_stream(nats::topology::COMMANDS).await.unwrap();
    servers.nats.jetstream().delete_stream(nats::topology::TASKS).await.unwrap();
    let said: crate::stack::Said = command.output().unwrap().into();
    assert_eq!(said.code, 0, "{}", said.err);
    check(said.json()["results"].as_array().unwrap(), &["append"]);
    assert!(servers.nats.jetstream().get_stream(nats::topology::EVENTS).await.is_err(), "it left its log behind");
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname LIKE 'bench\\_%'")
        .fetch_one(servers.database.pool())
        .await
        .unwrap();
    assert_eq!(left, 0, "it left its database behind");
}
