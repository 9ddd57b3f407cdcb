//! Whatever arrives from outside is read without panicking, and what is not understood is refused with a sentence.

use kernel::{CommandId, Commit, Cursor, EventId, Fingerprint, Position, PrincipalId, Problem, StreamName, Timestamp};
use kernel::{CommandSet, Stamp};
use proptest::prelude::*;

fn stamp() -> Stamp {
    Stamp {
        at: Timestamp::UNIX_EPOCH,
        id: CommandId::new("c").unwrap(),
        stream: StreamName::new("t", "c", "i").unwrap(),
        principal: PrincipalId::new("p").unwrap(),
    }
}

/// Text that looks like what we read, with something wrong in it.
fn near_misses() -> impl Strategy<Value = String> {
    let token = "[A-Za-z0-9_.*> \\-\u{e4}\u{0}\n]{0,8}";
    prop_oneof![
        proptest::collection::vec(token, 0..9).prop_map(|tokens| tokens.join(".")),
        "p1-[0-9a-g+\\-]{0,20}(\\.[0-9]{0,12})?",
        "\\PC{0,200}",
    ]
}

fn near_json() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof!["null|true|-?[0-9]{1,20}(\\.[0-9]{1,9})?(e[0-9]{1,3})?", "\"[a-z\\\\u]{0,6}\"?"];
    let tree = leaf.prop_recursive(6, 60, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec(("[a-z_]{1,12}", inner), 0..5).prop_map(|fields| {
                let fields: Vec<String> = fields.into_iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    });
    prop_oneof![tree.prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..400)]
}

proptest! {
    #[test]
    fn names_and_places(text in near_misses()) {
        let _ = nats::subjects::stream(&text);
        if let Ok(read) = nats::subjects::addressed(&text) {
            prop_assert_eq!(text.split('.').count(), 6);
            prop_assert!(nats::subjects::stream(&nats::subjects::commit(&read.stream)).is_some());
        }
        if let Ok(position) = text.parse::<Position>() {
            prop_assert_eq!(position.to_string().parse::<Position>(), Ok(position));
        }
        let _ = (text.parse::<Cursor>(), text.parse::<EventId>(), text.parse::<CommandId>());
    }

    #[test]
    fn bodies_of_commands(body in near_json(), name in "[a-z-]{1,14}") {
        let known = [workflows::run::Command::SPECS, workflows::definition::Command::SPECS, gateway::decider::Command::SPECS];
        let names = known.into_iter().flatten().map(|spec| spec.name).chain([name.as_str()]);
        let sane = |problem: Problem| (400..500).contains(&problem.status) && !problem.detail.is_empty();
        for name in names {
            prop_assert!(workflows::run::Command::parse(name, &body, &stamp()).map_or_else(sane, |_| true));
            prop_assert!(workflows::definition::Command::parse(name, &body, &stamp()).map_or_else(sane, |_| true));
            prop_assert!(gateway::decider::Command::parse(name, &body, &stamp()).map_or_else(sane, |_| true));
        }
        let _ = Fingerprint::of("x", &body);
        let asking = kernel::object::<workflows::work::Asking>(&body);
        prop_assert!(asking.map_or_else(sane, |_| true));
    }

    #[test]
    fn messages_of_the_log(bytes in near_json()) {
        if let Ok(commit) = Commit::parse(&bytes) {
            prop_assert!(!commit.events.is_empty());
            for event in &commit.events {
                let _ = event.decode::<events::run::Event>();
                let _ = event.decode::<events::workflow::Event>();
                let _ = event.decode::<events::inbox::Event>();
            }
        }
    }
}
