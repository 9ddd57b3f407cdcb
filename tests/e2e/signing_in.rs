//! People at the command line.

use std::os::unix::fs::PermissionsExt as _;

use crate::people::PASSWORD;
use crate::stack::Stack;

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_gets_a_tenant_with_one_command_and_works_in_it() {
    let stack = Stack::up(&[]);
    assert_eq!(stack.run(&["whoami", "--json"]).json()["kind"], "development");
    let began =
        stack.run_with(&["init", "--email", "ann@example.org", "--tenant", "Acme", "--password-stdin"], PASSWORD);
    assert_eq!(began.code, 0, "{}", began.err);
    assert!(stack.folder().join("airstream.toml").exists(), "{}", began.err);
    let me = stack.run(&["whoami", "--json"]).json();
    assert_eq!((me["kind"].as_str(), me["level"].as_str()), (Some("person"), Some("own")), "{me}");
    let tenant = me["tenant"].as_str().unwrap();
    let mine = stack.run(&["tenants", "ls", "--json"]).json();
    assert_eq!((mine["items"][0]["id"].as_str(), mine["items"][0]["name"].as_str()), (Some(tenant), Some("Acme")));

    // What others see of it: a file that only its owner can read.
    let kept = stack.folder().join("config/airstream/contexts.json");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let contexts = stack.run(&["context", "ls", "--json"]);
    assert!(!contexts.out.contains("eyJ") && !contexts.out.contains("art_"), "{}", contexts.out);

    // Again changes nothing.
    let again = stack.run(&["init", "--email", "ann@example.org"]);
    assert_eq!(again.code, 0, "{}", again.err);
    assert_eq!(stack.run(&["whoami", "--json"]).json()["tenant"], me["tenant"]);

    // Everything works as this person, in this tenant.
    std::fs::write(stack.folder().join("w.json"), r#"{"workflow_id":"w","steps":[{"id":1,"name":"a"}]}"#).unwrap();
    let defined = stack.run(&["workflows", "define", "w.json", "--json"]);
    assert_eq!(defined.code, 0, "{}", defined.err);
    assert_eq!(defined.json()["stream"], format!("{tenant}/workflow/w"));

    assert_eq!(stack.run(&["logout"]).code, 0);
    assert_eq!(stack.run(&["whoami", "--json"]).json()["kind"], "development");
    let wrong = stack.run_with(&["login", "ann@example.org", "--password-stdin"], "wrong");
    assert_eq!((wrong.code, wrong.out.as_str()), (4, ""), "{}", wrong.err);
    let right = stack.run_with(&["login", "ann@example.org", "--password-stdin"], PASSWORD);
    assert_eq!(right.code, 0, "{}", right.err);
    assert_eq!(stack.run(&["whoami", "--json"]).json()["tenant"], tenant);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_that_ends_is_refreshed_and_a_session_that_ended_is_told() {
    let stack = Stack::up(&[]);
    let began = stack.run_with(&["init", "--email", "a@example.org", "--tenant", "A", "--password-stdin"], PASSWORD);
    assert_eq!(began.code, 0, "{}", began.err);
    let kept = stack.folder().join("config/airstream/contexts.json");
    let change = |how: &dyn Fn(&mut serde_json::Value)| {
        let mut store = serde_json::from_str(&std::fs::read_to_string(&kept).unwrap()).unwrap();
        how(&mut store);
        std::fs::write(&kept, store.to_string()).unwrap();
    };
    let refresh = || {
        let text = std::fs::read_to_string(&kept).unwrap();
        let store: serde_json::Value = serde_json::from_str(&text).unwrap();
        store["contexts"]["local"]["session"]["refresh_token"].as_str().unwrap().to_owned()
    };
    let before = refresh();
    change(&|store| store["contexts"]["local"]["session"]["expires_at"] = 0.into());
    // Several at once: one refreshes, and nobody loses the session.
    let asking: Vec<_> =
        (0..4).map(|_| stack.command().args(["whoami"]).stdout(std::process::Stdio::null()).spawn().unwrap()).collect();
    for mut child in asking {
        assert!(child.wait().unwrap().success());
    }
    assert_ne!(refresh(), before);

    let session = stack.run(&["whoami", "--json"]);
    assert_eq!(session.code, 0);
    change(&|store| {
        store["contexts"]["local"]["session"]["expires_at"] = 0.into();
        store["contexts"]["local"]["session"]["refresh_token"] = "art_nonsense".into();
    });
    let over = stack.run(&["whoami"]);
    assert_eq!(over.code, 4);
    assert!(over.err.contains("airstream login --context local"), "{}", over.err);
}
