//! Who may come in, and what for.

use std::time::Duration;

use async_nats::ConnectOptions;
use rest::{Level, Signed};
use runtime::clock;

use super::{House, key};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_its_own_doors() {
    let house = House::open(1).await;
    let acme = house.program("token-1", "key_1", "acme").await;
    let answer = acme.take("one").await;
    assert_eq!((answer["accepted"].as_bool(), answer["version"].as_u64()), (Some(true), Some(1)), "{answer}");
    assert_eq!(acme.queue("one", Default::default()).await, Ok(1));
    // As a password, too: not every client can send a token.
    let options = ConnectOptions::with_user_and_password("whoever".to_owned(), "token-1".to_owned());
    let options = options.custom_inbox_prefix("_INBOX.acme.key_1");
    let client = options.connect(&house.stack.nats().url).await.unwrap();
    let reply = client.request("cmd.acme.key_1.till.one.take", r#"{"coins":1}"#.into()).await.unwrap();
    assert!(String::from_utf8_lossy(&reply.payload).contains(r#""version":2"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_key_stays_outside() {
    let house = House::open(1).await;
    let scoped = |scopes: &[&str]| Some(scopes.iter().map(|scope| (*scope).to_owned()).collect());
    house.knows("nowhere", Signed { tenant: None, level: None, ..key("usr_1", "acme") });
    house.knows("nothing", Signed { scopes: scoped(&["keys:admin"]), ..key("key_2", "acme") });
    house.knows("platform", key("usr_2", "airstream"));
    house.knows("ours", key("airstream", "acme"));
    house.knows("over", Signed { expires_at: Some(clock::now() - Duration::from_secs(1)), ..key("key_3", "acme") });
    for token in ["nowhere", "nothing", "platform", "ours", "over", "wrong", ""] {
        let refused = house.comes_in(token, "key_1", "acme").await;
        assert!(refused.is_err(), "`{token}` was let in");
    }
    // Nor does the name of somebody whom the server knows help.
    let tenants = house.tenants();
    for user in [house.stack.nats().user.as_ref().unwrap(), "sys", &tenants.user, &tenants.callout_user] {
        house.knows("right", key("key_1", "acme"));
        for password in ["right", "wrong", ""] {
            let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
            assert!(options.connect(&house.stack.nats().url).await.is_err(), "{user} was let in with `{password}`");
        }
    }
    assert!(ConnectOptions::new().connect(&house.stack.nats().url).await.is_err(), "nobody at all was let in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_only_look_asks_for_nothing() {
    let house = House::open(1).await;
    let mut witness = house.witness().await;
    house.knows("reads", Signed { level: Some(Level::Read), ..key("key_r", "acme") });
    let reads = house.comes_in("reads", "key_r", "acme").await.unwrap();
    let mut feed = reads.client.subscribe("feed.acme.>").await.unwrap();
    reads.client.flush().await.unwrap();
    for door in ["cmd", "queue", "work"] {
        reads.client.publish(format!("{door}.acme.key_r.till.one.take"), "{}".into()).await.unwrap();
        reads.is_told(&format!("publish to \"{door}.acme.key_r")).await;
    }
    let writes = house.program("writes", "key_w", "acme").await;
    writes.take("one").await;
    assert_eq!(super::next(&mut feed).await.subject.as_str(), "feed.acme.till.till.taken");
    assert_eq!(super::next(&mut witness).await.subject.as_str(), "cmd.acme.key_w.till.one.take");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_platform_is_away_nobody_new_comes_in() {
    let house = House::open(1).await;
    let acme = house.program("token-1", "key_1", "acme").await;
    house.stop.cancel();
    let told = acme.client.request("cmd.acme.key_1.till.one.take", "{}".into());
    stories::eventually("the doors are closed", async || told_nobody_is_there(&acme).await).await;
    drop(told);
    assert!(house.comes_in("token-1", "key_1", "acme").await.is_err());
}

async fn told_nobody_is_there(program: &super::Program) -> bool {
    let asked = program.client.request("cmd.acme.key_1.till.one.take", "{}".into()).await;
    asked.is_err_and(|error| error.kind() == async_nats::RequestErrorKind::NoResponders)
}
