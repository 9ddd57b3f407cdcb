//! What the command line says to people and to scripts.

use std::time::{Duration, Instant};

use crate::stack::Stack;

#[test]
fn nothing_runs_and_every_command_says_so() {
    let stack = Stack::stopped();
    for arguments in [["status"].as_slice(), &["events", "ls"], &["workflows", "ls"], &["projections", "status"]] {
        let said = stack.run(arguments);
        assert_eq!(said.code, 8, "{arguments:?}: {}", said.err);
        assert!(said.out.is_empty() && said.err.contains("airstream up"), "{arguments:?}: {}", said.err);
    }
    assert_eq!(stack.run(&["down"]).code, 0);
    assert_eq!(stack.run(&["fly"]).code, 2);
    assert_eq!(stack.run(&["--help"]).code, 0);
    assert!(stack.run(&["completion", "bash"]).out.contains("airstream"));
    assert!(stack.run(&["version", "--json"]).json()["version"].is_string());
    assert_eq!(stack.run(&["config", "show", "--origin", "--json"]).code, 0);
}

#[test]
fn a_stack_is_ready_quickly_and_tells_scripts_where_everything_is() {
    let stack = Stack::up(&[]);
    let status = stack.status();
    for key in ["http", "postgres", "tenant", "principal", "token"] {
        assert!(status[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {status}");
    }
    for key in ["url", "user", "password"] {
        assert!(status["nats"][key].is_string(), "{key}: {status}");
    }
    // The second one in the same folder finds the first.
    let again = stack.run(&["up", "--port", "0"]);
    assert!(again.code != 0 && again.err.contains("already"), "{} {}", again.code, again.err);
    // Another folder is another stack.
    let other = Stack::up(&[]);
    assert_ne!(other.status()["http"], status["http"]);
    assert_eq!(other.run(&["workflows", "ls", "--json"]).json()["items"], serde_json::json!([]));
    let began = Instant::now();
    assert_eq!(other.run(&["down"]).code, 0);
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(stack.run(&["workflows", "ls"]).code, 0, "the other one's end was noticed here");
}

#[test]
fn exit_codes_say_what_kind_of_no_it_is() {
    let stack = Stack::up(&[]);
    assert_eq!(stack.run(&["workflows", "runs", "show", "nobody"]).code, 3);
    assert_eq!(stack.run(&["events", "show", "p1-fff"]).code, 3);
    let definition = r#"{"steps":[{"id":1,"name":"a"}]}"#;
    let publish = |version: &str, body: &str| {
        stack.run(&["commands", "publish", "workflow", "w", "define", "-d", body, "--expect-version", version]).code
    };
    assert_eq!(publish("3", definition), 5);
    assert_eq!(publish("0", definition), 0);
    assert_eq!(publish("x", definition), 2);
    let said = stack.run(&[
        "commands",
        "publish",
        "workflow",
        "w2",
        "define",
        "-d",
        r#"{"steps":[{"id":1,"name":"a","timeout":-1}]}"#,
    ]);
    assert!(said.code == 1 && said.err.contains("/steps/0/timeout"), "{} {}", said.code, said.err);
    let mut guess = stack.command();
    guess.env("AIRSTREAM_URL", stack.status()["http"].as_str().unwrap()).env("AIRSTREAM_TOKEN", "wrong");
    assert_eq!(guess.args(["workflows", "ls"]).output().unwrap().status.code(), Some(4));
    let refused = stack.run(&["workflows", "ls", "--json"]);
    assert!(refused.json()["items"].is_array());
    assert_eq!(stack.run(&["projections", "rebuild", "commits"]).code, 0);
}

#[test]
fn starting_says_what_is_wrong_and_what_to_do() {
    let stack = Stack::stopped();
    let file = stack.folder().join("a-file");
    std::fs::write(&file, "").unwrap();
    let mut up = stack.command();
    let said = up.args(["up", "--port", "0"]).arg("--data-dir").arg(file.join("below")).output().unwrap();
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(!said.status.success() && text.contains("a-file"), "{text}");

    std::fs::write(stack.folder().join("airstream.toml"), "[http]\nbindd = \"127.0.0.1:1\"\n").unwrap();
    let said = stack.run(&["config", "show"]);
    assert!(said.code != 0 && said.err.contains("bindd"), "{}", said.err);
}
