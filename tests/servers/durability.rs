//! What the server says about syncing is what it was configured to do.

use nats::{Credentials, Durability, durability};

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_of_tests_sync_before_they_acknowledge() {
    let shared = embedded::shared(embedded::SharedOptions::new(env!("CARGO_MANIFEST_DIR"))).await.unwrap();
    let nats = shared.nats();
    let system = Credentials { user: "sys".into(), password: nats.users["sys"].clone() };
    assert_eq!(durability(&nats.url, &system).await, Durability::Always);
    let found = durability(&nats.url, &Credentials::default()).await;
    assert!(matches!(found, Durability::Unknown(_)), "without a user nothing is known: {found:?}");
}
