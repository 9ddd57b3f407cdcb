//! `airstream instances`: the processes that share the work.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Context, items};
use crate::failure::Outcome;
use crate::output::field;

pub(crate) async fn run(context: &Context<'_>) -> Outcome {
    let console = context.console;
    let found = context.client()?.get("/v1/instances", &Vec::new()).await?;
    if console.is_json() {
        return console.json(&found);
    }
    let rows = items(&found).iter().map(|item| {
        let names = item.get("leases").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        vec![field(item, "instance"), field(item, "since"), does(&names)]
    });
    console.table(&["instance", "since", "does"], rows.collect())
}

/// `8 shards, projection runs_v1`: what there are many of is counted.
fn does(leases: &[&str]) -> String {
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (kind, name) in leases.iter().filter_map(|lease| lease.split_once('/')) {
        kinds.entry(kind).or_default().push(name);
    }
    let of = |(kind, names): (&str, Vec<&str>)| match (kind, names.len()) {
        ("shard", 1) => "1 shard".to_owned(),
        ("shard", many) => format!("{many} shards"),
        (kind, _) => names.iter().map(|name| format!("{kind} {name}")).collect::<Vec<_>>().join(", "),
    };
    let all: Vec<String> = kinds.into_iter().map(of).collect();
    if all.is_empty() { "nothing yet".to_owned() } else { all.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_counted_and_the_rest_is_named() {
        let leases = ["projection/runs_v1", "projection/inbox_v1", "queue/commands", "shard/00", "shard/01"];
        assert_eq!(does(&leases), "projection runs_v1, projection inbox_v1, queue commands, 2 shards");
        assert_eq!(does(&[]), "nothing yet");
    }
}
