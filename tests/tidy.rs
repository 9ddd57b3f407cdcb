//! Housekeeping as a test: the arrows between rooms, what deciders may not name, and other rules that no compiler knows.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests report by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below a folder with one of these endings, without build output and dot folders.
fn files(below: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str()) {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

/// The rooms, and the rooms that each may know. Services never know each other; only the binary knows everything.
fn arrows() -> BTreeMap<&'static str, Vec<&'static str>> {
    let machines = vec!["kernel", "runtime"];
    let service = vec!["kernel", "events", "runtime", "nats", "projections", "rest", "vault"];
    BTreeMap::from([
        ("kernel", vec![]),
        ("events", vec!["kernel"]),
        ("runtime", vec!["kernel"]),
        ("nats", machines.clone()),
        ("projections", vec!["kernel", "events", "runtime", "vault"]),
        ("rest", machines.clone()),
        ("vault", machines),
        ("embedded", vec![]),
        // Knows nobody, so that it cannot repeat anybody's mistake.
        ("tests/checker", vec![]),
        ("services/workflows", service.clone()),
        ("services/identity", service.clone()),
        ("services/mail", service.clone()),
        ("services/gateway", service),
    ])
}

fn dependencies(room: &str, section: &str) -> Vec<String> {
    let manifest: toml::Table = read(&root().join(room).join("Cargo.toml")).parse().unwrap();
    let table = manifest.get(section).and_then(toml::Value::as_table).cloned().unwrap_or_default();
    table.keys().cloned().collect()
}

#[test]
fn dependencies_run_one_way() {
    let workspace: toml::Table = read(&root().join("Cargo.toml")).parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap().iter().map(|member| member.as_str().unwrap());
    let known = arrows();
    for member in members.filter(|member| !["airstream", "tests"].contains(member)) {
        let allowed = known.get(member).unwrap_or_else(|| panic!("{member} is a new room: draw its arrows here"));
        for dependency in dependencies(member, "dependencies") {
            let ours =
                known.keys().any(|room| room.rsplit('/').next() == Some(&dependency)) || dependency == "airstream";
            assert!(!ours || allowed.contains(&dependency.as_str()), "{member} must not depend on {dependency}");
        }
    }
}

#[test]
fn features_and_versions_are_named_once_in_the_workspace_manifest() {
    for manifest in files(&root(), &["Cargo.toml"]) {
        if manifest == root().join("Cargo.toml") {
            continue;
        }
        let table: toml::Table = read(&manifest).parse().unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in table.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                let plain = value.as_table().is_some_and(|table| table.len() == 1 && table.contains_key("workspace"));
                assert!(plain, "{}: say `{name}.workspace = true`", short(&manifest));
            }
        }
    }
}

/// The code of a file without its tests and comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn decisions_name_no_clock_no_random_no_await_and_no_input_or_output() {
    const FORBIDDEN: [&str; 16] = [
        "Utc::now",
        "SystemTime",
        "Instant",
        "clock::",
        "now_v7",
        "new_v4",
        "rand::",
        "async ",
        ".await",
        "tokio",
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "println!",
        "static mut",
    ];
    let services = root().join("services");
    let mut deciders = vec![];
    for file in files(&services, &[".rs"]) {
        let name = short(&file);
        // A service's decisions are in `decider.rs`, or in files that implement `Decider` and the folders beside them.
        let own = read(&file).contains("impl Decider for") || name.ends_with("/decider.rs");
        let beside = file.parent().is_some_and(|folder| {
            let parent = folder.with_extension("rs");
            parent.exists() && read(&parent).contains("impl Decider for")
        });
        if (own || beside) && !name.ends_with("/tests.rs") {
            deciders.push(file);
        }
    }
    assert!(deciders.len() >= 10, "the search for deciders is broken: {deciders:?}");
    deciders.extend(files(&root().join("kernel/src"), &[".rs"]));
    deciders.extend(files(&root().join("events/src"), &[".rs"]));
    for file in deciders {
        let code = code(&read(&file));
        for word in FORBIDDEN {
            assert!(!code.contains(word), "{} names `{word}`: time, ids and facts arrive in the command", short(&file));
        }
    }
}

#[test]
fn machines_know_no_domain_word() {
    for room in ["kernel/src", "runtime/src", "nats/src"] {
        for file in files(&root().join(room), &[".rs"]) {
            let code = code(&read(&file)).to_lowercase();
            for word in ["workflow", "saga", "invoice", "airtable", "webhook", "events::"] {
                assert!(!code.contains(word), "{} names `{word}`, a word of the domain", short(&file));
            }
        }
    }
}

#[test]
fn no_test_is_ignored_and_none_waits_for_an_amount_of_time() {
    for file in files(&root(), &[".rs"]).into_iter().filter(|file| !file.ends_with("tidy.rs")) {
        let text = read(&file);
        assert!(!text.contains("#[ignore"), "{} ignores a test", short(&file));
        // In a simulation time is virtual: sleeping is how its world takes its time, and costs none.
        let simulated = short(&file).contains("/tests/simulation/");
        let is_test = (short(&file).starts_with("tests/") || short(&file).contains("/tests/")) && !simulated;
        // A pause inside a loop with a deadline is how one waits for a state; it is short, and the loop is in a helper.
        let pauses = text.matches("sleep(").count();
        assert!(!is_test || pauses <= 2, "{} sleeps {pauses} times: wait for states with a deadline", short(&file));
    }
}

#[test]
fn no_file_names_a_registry_host() {
    let hosts: Vec<String> =
        [("crates", "io"), ("pypi", "org"), ("npmjs", "org"), ("npmjs", "com"), ("pythonhosted", "org")]
            .map(|(name, end)| format!("{name}.{end}"))
            .to_vec();
    let endings = [".rs", ".toml", ".md", ".yaml", ".yml", ".py", ".json", ".sql", "Dockerfile", "run"];
    for file in files(&root(), &endings) {
        let text = read(&file);
        for host in &hosts {
            assert!(!text.contains(host.as_str()), "{} names {host}: say the package's name", short(&file));
        }
    }
}

#[test]
fn every_migration_is_embedded_and_numbered_without_a_gap() {
    let listed: Vec<String> =
        projections::migrations().iter().map(|(number, name, _)| format!("{number}_{name}.sql")).collect();
    let found: Vec<String> = files(&root().join("migrations"), &[".sql"])
        .iter()
        .map(|file| file.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, listed, "list the file in projections/src/migrate.rs");
    for (index, name) in listed.iter().enumerate() {
        assert!(name.starts_with(&format!("{:04}_", index + 1)), "{name} is out of turn");
    }
}

#[test]
fn what_the_documents_point_at_exists() {
    for file in files(&root(), &[".md"]) {
        let text = read(&file);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#') && !link.starts_with("mailto:"))
        {
            let target = file.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{} points at {link}, which does not exist", short(&file));
        }
    }
}

/// A rule of the alerts file: its name and its expression.
fn alerts() -> Vec<(String, String)> {
    let text = read(&root().join("deploy/prometheus/alerts.yaml"));
    let rules: Vec<&str> = text.split("      - alert: ").skip(1).collect();
    assert_eq!(rules.len(), text.matches("alert:").count(), "a rule is not indented like the others");
    let rule = |rule: &&str| {
        let (name, rest) = rule.split_once('\n').unwrap();
        let keys: Vec<(&str, &str)> = rest.lines().filter_map(|line| line.trim().split_once(": ")).collect();
        let value = |key: &str| {
            let found = keys.iter().find(|(known, _)| *known == key).unwrap_or_else(|| panic!("{name} has no {key}"));
            found.1.trim_matches('\'').to_owned()
        };
        assert!(!value("summary").is_empty() && value("labels").contains("severity: "), "{name}");
        assert_eq!(value("runbook"), format!("docs/operations.md#{}", name.to_lowercase()));
        let wait = value("for");
        assert!(wait.trim_end_matches(['s', 'm']).parse::<u32>().is_ok(), "{name} waits for {wait}");
        (name.to_owned(), value("expr"))
    };
    rules.iter().map(rule).collect()
}

#[test]
fn alerts_name_metrics_and_labels_that_exist() {
    let alerts = alerts();
    assert!(alerts.len() >= 20, "{alerts:?}");
    for (name, expression) in &alerts {
        let balanced = |open, close| expression.matches(open).count() == expression.matches(close).count();
        assert!(balanced('(', ')') && balanced('{', '}') && balanced('[', ']'), "{name}: {expression}");
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: Vec<_> =
            words.filter(|word| word.starts_with("airstream_") || word.starts_with("process_")).collect();
        assert!(!metrics.is_empty() || expression.starts_with("up{"), "{name} is about no metric of ours");
        for word in metrics {
            use runtime::telemetry::{Kind, METRICS};
            let metric = METRICS.iter().find(|metric| match metric.kind {
                Kind::Histogram => word.strip_suffix("_bucket") == Some(metric.name),
                Kind::Counter | Kind::Gauge => word == metric.name,
            });
            let metric = metric.unwrap_or_else(|| panic!("{name} names {word}, which is no metric"));
            // The matchers right after this metric's name.
            for part in expression.split(word).skip(1).filter_map(|rest| rest.strip_prefix('{')) {
                let matchers = part.split('}').next().unwrap();
                for label in matchers.split(',').map(|matcher| matcher.split(['=', '!']).next().unwrap().trim()) {
                    assert!(label == "job" || metric.labels.contains(&label), "{name}: {word} has no label `{label}`");
                }
            }
        }
    }
}

#[test]
fn every_alert_says_what_to_do_and_nothing_else_does() {
    let document = read(&root().join("docs/operations.md"));
    let mut sections: Vec<&str> =
        document.split("\n### ").skip(1).filter(|section| section.starts_with("Airstream")).collect();
    for (name, expression) in alerts() {
        let at = sections.iter().position(|section| section.lines().next() == Some(&name));
        let section = sections.remove(at.unwrap_or_else(|| panic!("docs/operations.md says nothing about {name}")));
        assert!(section.contains(&format!("```promql\n{expression}\n```")), "{name} has another expression there");
        for part in ["**Look first**", "**Do**", "**Don't**"] {
            assert!(section.contains(part), "{name} does not say: {part}");
        }
    }
    assert!(
        sections.is_empty(),
        "no alert is called {:?}",
        sections.iter().map(|section| section.lines().next()).collect::<Vec<_>>()
    );
}

/// A metric that nothing sets would be shown, or asked for in an alert, for nothing.
#[test]
fn every_metric_is_told_by_something() {
    let names = read(&root().join("runtime/src/telemetry.rs"));
    let constants: Vec<&str> =
        names.lines().filter_map(|line| line.trim().split_once(" = \"")).map(|(name, _)| name).collect();
    assert_eq!(constants.len(), runtime::telemetry::METRICS.len(), "the search for constants is broken");
    let others: Vec<String> = files(&root(), &[".rs"])
        .iter()
        .filter(|file| !file.ends_with("runtime/src/telemetry.rs"))
        .map(|file| read(file))
        .collect();
    for name in constants {
        let used = others.iter().any(|text| text.contains(&format!("telemetry::{name}")));
        // A door counts through `InHand`.
        assert!(used || names.contains(&format!("gauge!({name},")), "nothing tells {name}");
    }
}
