//! What every keyring promises, as a suite for its adapters' tests.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "panicking is how a suite reports")]

use crate::Keyring;
use crate::cipher::random;

fn subject() -> String {
    format!("usr_{:x}", u128::from_be_bytes(random()))
}

/// Runs the suite.
pub async fn suite(keyring: &dyn Keyring) {
    the_first_key_counts(keyring).await;
    whoever_comes_at_once_gets_one_key(keyring).await;
    what_is_destroyed_does_not_come_back(keyring).await;
}

async fn the_first_key_counts(keyring: &dyn Keyring) {
    let (ann, bob) = (subject(), subject());
    assert_eq!(keyring.get(&ann).await.unwrap(), None);
    assert_eq!(keyring.get_or_keep(&ann, vec![1]).await.unwrap(), Some(vec![1]));
    assert_eq!(keyring.get_or_keep(&ann, vec![2]).await.unwrap(), Some(vec![1]));
    assert_eq!(keyring.get_or_keep(&bob, vec![3]).await.unwrap(), Some(vec![3]));
    assert_eq!(keyring.get(&ann).await.unwrap(), Some(vec![1]));
}

async fn whoever_comes_at_once_gets_one_key(keyring: &dyn Keyring) {
    let ann = subject();
    let offers = (0..16_u8).map(|n| keyring.get_or_keep(&ann, vec![n]));
    let given: Vec<Option<Vec<u8>>> =
        futures::future::join_all(offers).await.into_iter().map(|given| given.unwrap()).collect();
    assert!(given[0].is_some() && given.iter().all(|one| *one == given[0]), "{given:?}");
}

async fn what_is_destroyed_does_not_come_back(keyring: &dyn Keyring) {
    let (ann, nobody) = (subject(), subject());
    keyring.get_or_keep(&ann, vec![1]).await.unwrap();
    for gone in [&ann, &nobody] {
        for _ in 0..2 {
            keyring.destroy(gone).await.unwrap();
            assert_eq!(keyring.get(gone).await.unwrap(), None);
            assert_eq!(keyring.get_or_keep(gone, vec![2]).await.unwrap(), None);
        }
    }
}
