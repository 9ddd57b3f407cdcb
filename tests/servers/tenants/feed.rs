//! The live feed.

use kernel::Cursor;
use serde_json::Value;

use super::{House, next};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_hears_its_events_as_they_happen_and_knows_where_to_read_on() {
    let house = House::open(1).await;
    let (acme, bravo) =
        (house.program("token-1", "key_1", "acme").await, house.program("token-2", "key_2", "bravo").await);
    let mut all = acme.client.subscribe("feed.acme.>").await.unwrap();
    let mut took = acme.client.subscribe("feed.acme.*.till.taken").await.unwrap();
    acme.client.flush().await.unwrap();
    bravo.take("two").await;
    for n in 1..=3 {
        let answer = acme.take("one").await;
        for feed in [&mut all, &mut took] {
            let message = next(feed).await;
            assert_eq!(message.subject.as_str(), "feed.acme.till.till.taken");
            let headers = message.headers.as_ref().unwrap();
            assert_eq!(headers.get("Content-Type").unwrap().as_str(), "application/cloudevents+json");
            let cursor: Cursor = headers.get("Airstream-Cursor").unwrap().as_str().parse().unwrap();
            assert_eq!((cursor.position.to_string().as_str(), cursor.index), (answer["position"].as_str().unwrap(), 0));
            let event: Value = serde_json::from_slice(&message.payload).unwrap();
            assert_eq!((&event["type"], &event["tenantid"]), (&"till.taken".into(), &"acme".into()), "{event}");
            assert_eq!((&event["streamversion"], &event["id"]), (&n.into(), &answer["events"][0]["id"]), "{event}");
            assert_eq!((&event["specversion"], &event["actor"]), (&"1.0".into(), &"key_1".into()), "{event}");
            assert!(event.get("commandhash").is_none(), "{event}");
        }
    }
}
