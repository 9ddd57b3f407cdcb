//! Who should hold what: a pure function of the record, so that every store decides alike.

use std::collections::BTreeMap;

/// An instance that is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contender {
    /// Its name.
    pub instance: String,
    /// What it is able to do.
    pub wants: Vec<String>,
}

/// A lease as recorded: its holder, if that one is alive and the lease has not run out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The lease.
    pub name: String,
    /// Who holds it.
    pub holder: String,
}

/// What the instance whose turn it is should do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Hold on to these.
    pub keep: Vec<String>,
    /// Take these: they are free, and within its share.
    pub take: Vec<String>,
    /// Give these up: others are there to have them.
    pub give: Vec<String>,
}

/// Shares the leases of each kind evenly among those who want them. Nothing moves that need not: an instance gives up only
/// what is beyond its share, and takes only what nobody holds.
#[must_use]
pub fn assign(me: &Contender, alive: &[Contender], claimed: &[Claimed]) -> Assignment {
    // Instances of different versions want different leases: what only some of them can do is shared among those.
    let mut groups: BTreeMap<(&str, Vec<&str>), Vec<&String>> = BTreeMap::new();
    for name in &me.wants {
        let others = alive.iter().filter(|other| other.instance != me.instance && other.wants.contains(name));
        let others: Vec<&str> = others.map(|other| other.instance.as_str()).collect();
        groups.entry((kind(name), others)).or_default().push(name);
    }
    let holder: BTreeMap<&str, &str> =
        claimed.iter().map(|claimed| (claimed.name.as_str(), claimed.holder.as_str())).collect();
    let mut result = Assignment::default();
    for ((_, others), mut names) in groups {
        names.sort();
        names.dedup();
        let share = names.len().div_ceil(others.len() + 1);
        let (mine, rest): (Vec<&String>, Vec<&String>) =
            names.into_iter().partition(|name| holder.get(name.as_str()) == Some(&me.instance.as_str()));
        let free = rest.into_iter().filter(|name| !holder.contains_key(name.as_str()));
        result.take.extend(free.take(share.saturating_sub(mine.len())).cloned());
        result.keep.extend(mine.iter().take(share).map(|name| (*name).clone()));
        result.give.extend(mine.into_iter().skip(share).cloned());
    }
    result
}

/// `shard` of `shard/07`.
fn kind(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contender(instance: &str, wants: &[&str]) -> Contender {
        Contender { instance: instance.into(), wants: wants.iter().map(|name| (*name).to_owned()).collect() }
    }

    const ALL: [&str; 5] = ["shard/0", "shard/1", "shard/2", "shard/3", "queue/commands"];

    fn claimed(by: &[(&str, &str)]) -> Vec<Claimed> {
        by.iter().map(|(name, holder)| Claimed { name: (*name).into(), holder: (*holder).into() }).collect()
    }

    #[test]
    fn one_alone_takes_everything() {
        let me = contender("a", &ALL);
        let got = assign(&me, std::slice::from_ref(&me), &[]);
        assert_eq!((got.take.len(), got.give.len()), (5, 0));
    }

    #[test]
    fn a_second_one_is_given_half_and_takes_no_more_than_that() {
        let (a, b) = (contender("a", &ALL), contender("b", &ALL));
        let alive = [a.clone(), b.clone()];
        let held: Vec<(&str, &str)> = ALL.iter().map(|name| (*name, "a")).collect();
        let first = assign(&a, &alive, &claimed(&held));
        assert_eq!(first.give, ["shard/2", "shard/3"], "a kind with one lease stays where it is");
        assert_eq!(first.keep, ["queue/commands", "shard/0", "shard/1"]);
        let second = assign(&b, &alive, &claimed(&held[..2]));
        assert_eq!(second.take, ["queue/commands", "shard/2", "shard/3"]);
        let settled = claimed(&[("shard/0", "a"), ("shard/1", "a"), ("shard/2", "b"), ("shard/3", "b")]);
        for one in [&a, &b] {
            assert_eq!(assign(one, &alive, &settled).give, [""; 0], "a fair distribution rests");
        }
    }

    #[test]
    fn who_cannot_do_a_thing_has_no_share_in_it() {
        let (a, b) = (contender("a", &ALL), contender("b", &["queue/commands"]));
        let got = assign(&a, &[a.clone(), b], &[]);
        assert_eq!(got.take.iter().filter(|name| name.starts_with("shard/")).count(), 4);
    }

    #[test]
    fn nothing_is_left_to_nobody_while_two_versions_run_side_by_side() {
        let old = contender("old", &["projection/a_v1", "projection/b_v1", "projection/c_v1", "projection/runs_v1"]);
        let new = contender("new", &["projection/a_v1", "projection/b_v1", "projection/c_v1", "projection/runs_v2"]);
        let alive = [new.clone(), old.clone()];
        let mut held: Vec<Claimed> = Vec::new();
        for me in [&old, &new, &old] {
            let got = assign(me, &alive, &held);
            held.retain(|claimed| !got.give.contains(&claimed.name));
            held.extend(got.take.into_iter().map(|name| Claimed { name, holder: me.instance.clone() }));
        }
        let mut names: Vec<&str> = held.iter().map(|claimed| claimed.name.as_str()).collect();
        names.sort();
        assert_eq!(
            names,
            ["projection/a_v1", "projection/b_v1", "projection/c_v1", "projection/runs_v1", "projection/runs_v2"]
        );
    }

    #[test]
    fn shares_add_up_to_at_least_everything() {
        for instances in 1..=7_usize {
            let names: Vec<String> = (0..16).map(|n| format!("shard/{n:02}")).collect();
            let alive: Vec<Contender> =
                (0..instances).map(|n| Contender { instance: format!("i{n}"), wants: names.clone() }).collect();
            let mut held: Vec<Claimed> = Vec::new();
            for me in &alive {
                let got = assign(me, &alive, &held);
                held.extend(got.take.into_iter().map(|name| Claimed { name, holder: me.instance.clone() }));
            }
            assert_eq!(held.len(), 16, "{instances} instances leave something undone");
        }
    }
}
