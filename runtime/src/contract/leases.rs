//! The contract of [`LeaseStore`].

use std::time::Duration;

use crate::lease::{Claim, LeaseStore, Turn};

const LASTING: Duration = Duration::from_millis(400);

fn claim(instance: &str) -> Claim {
    let wants = ["shard/0", "shard/1", "shard/2", "shard/3", "queue/one"].map(str::to_owned).to_vec();
    Claim { instance: instance.to_owned(), wants, lasting: LASTING }
}

async fn turn(store: &dyn LeaseStore, instance: &str) -> Turn {
    store.turn(&claim(instance)).await.unwrap()
}

/// Runs the whole suite on an empty record.
pub async fn suite(store: &dyn LeaseStore) {
    leases_are_shared_and_keep_their_epoch_while_they_are_held(store).await;
    who_leaves_frees_everything_at_once(store).await;
    who_is_silent_loses_everything_after_a_while_and_finds_a_newer_epoch(store).await;
}

async fn leases_are_shared_and_keep_their_epoch_while_they_are_held(store: &dyn LeaseStore) {
    let first = turn(store, "a").await;
    assert_eq!(first.held.len(), 5, "one alone holds everything: {first:?}");
    assert_eq!(turn(store, "b").await.held.len(), 0, "what is held cannot be taken");
    let second = turn(store, "a").await;
    assert_eq!(second.held.len(), 3, "half the shards are given up: {second:?}");
    for (name, epoch) in &second.held {
        assert_eq!(first.held.get(name), Some(epoch), "an epoch moved while `{name}` was held");
    }
    let other = turn(store, "b").await;
    assert_eq!(other.held.len(), 2);
    for (name, epoch) in &other.held {
        assert!(*epoch > first.held[name], "a new holder of `{name}` has an old epoch");
        assert_eq!(other.holders[name], "b");
    }
    assert_eq!(other.holders.values().filter(|holder| *holder == "a").count(), 3);
    assert_eq!(turn(store, "a").await.held, second.held, "a fair distribution rests");
}

async fn who_leaves_frees_everything_at_once(store: &dyn LeaseStore) {
    store.leave("b").await.unwrap();
    assert_eq!(turn(store, "a").await.held.len(), 5);
}

async fn who_is_silent_loses_everything_after_a_while_and_finds_a_newer_epoch(store: &dyn LeaseStore) {
    let before = turn(store, "a").await;
    // Others get nothing as long as the silent one may still believe in its leases.
    let asked = tokio::time::Instant::now();
    let mut other = turn(store, "c").await;
    while other.held.len() < 5 {
        assert!(asked.elapsed() < 10 * LASTING, "the leases of a silent instance never run out: {other:?}");
        tokio::time::sleep(LASTING / 10).await;
        other = turn(store, "c").await;
    }
    assert!(asked.elapsed() >= LASTING / 2, "a lease was taken while it lasted");
    for (name, epoch) in &other.held {
        assert!(*epoch > before.held[name], "the epoch of `{name}` did not move");
    }
    assert!(turn(store, "a").await.held.is_empty(), "who comes back late has to wait for its share");
}
