//! Connections end with what they were opened with.

use std::time::Duration;

use rest::Signed;
use runtime::clock;
use stories::eventually;

use super::{House, key};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_its_credential() {
    let house = House::open(1).await;
    let other = house.program("token-2", "key_2", "acme").await;
    // Whole seconds: the moment in a token has no finer ones.
    house.knows("token-1", Signed { expires_at: Some(clock::now() + Duration::from_secs(3)), ..key("key_1", "acme") });
    let brief = house.comes_in("token-1", "key_1", "acme").await.unwrap();
    assert_eq!(brief.take("one").await["version"], 1);
    brief.is_cut().await;
    assert!(house.comes_in("token-1", "key_1", "acme").await.is_err());
    assert!(!other.was_cut());
    assert_eq!(other.take("one").await["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_cut_off_on_every_server_and_stays_outside() {
    let house = House::open(3).await;
    let mut programs = Vec::new();
    house.knows("token-1", key("key_1", "acme"));
    house.knows("token-2", key("key_2", "acme"));
    for server in &house.stack.nats().servers {
        let revoked = house.comes_in_at(&server.url, "token-1", "key_1", "acme").await.unwrap();
        let other = house.comes_in_at(&server.url, "token-2", "key_2", "acme").await.unwrap();
        revoked.take("one").await;
        other.take("two").await;
        programs.push((revoked, other));
    }
    house.revokes("token-1");
    for (revoked, other) in &programs {
        revoked.is_cut().await;
        // It tries by itself to come back, and is turned away.
        revoked.is_told("authorization violation").await;
        assert!(!other.was_cut());
        other.take("two").await;
    }
    assert!(house.comes_in("token-1", "key_1", "acme").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_do_less_comes_back_as_that() {
    let house = House::open(1).await;
    let acme = house.program("token-1", "key_1", "acme").await;
    acme.take("one").await;
    let less = Signed { scopes: Some(["events:read".to_owned()].into()), ..key("key_1", "acme") };
    house.revokes("token-1");
    house.knows("token-1", less);
    acme.is_cut().await;
    eventually("it may not ask any more", async || {
        let _ = acme.client.publish("cmd.acme.key_1.till.one.take", "{}".into()).await;
        acme.told.lock().unwrap().iter().any(|told| told.contains("permissions violation for publish"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lags_behind_with_revocations_asks_everybody_again() {
    let house = House::open(1).await;
    let (one, two) =
        (house.program("token-1", "key_1", "acme").await, house.program("token-2", "key_2", "bravo").await);
    // More at once than anybody can hear: who is meant is lost among them.
    for n in 0..4_096 {
        house.keys.lessened.send(format!("key_x{n}").parse().unwrap()).unwrap();
    }
    one.is_cut().await;
    two.is_cut().await;
    // Nothing is held against them.
    assert_eq!(one.take("one").await["version"], 1);
    assert_eq!(two.take("two").await["version"], 1);
}
