//! What a program with a good key tries besides.

use async_nats::HeaderMap;
use stories::eventually;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{House, next};

/// In a body, so that it would be recognised anywhere.
const MARK: &str = "nobody is to see this";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_published_but_to_ones_own_doors() {
    let house = House::open(1).await;
    let acme = house.program("token-1", "key_1", "acme").await;
    let mut witness = house.witness().await;
    let mut inside = house.inside.client().subscribe(">").await.unwrap();
    house.inside.client().flush().await.unwrap();
    let subjects = [
        // Somebody else.
        "cmd.bravo.key_1.till.one.take",
        "cmd.acme.key_2.till.one.take",
        "queue.bravo.key_1.till.one.take",
        "queue.acme.key_2.till.one.take",
        "work.bravo.key_1.task",
        "work.acme.airstream.task",
        "cmd.acme.key_11.till.one.take",
        "cmd.airstream.key_1.till.one.take",
        "door.x.cmd.acme.key_2.till.one.take",
        "_INBOX.acme.key_1.x",
        "_INBOX.bravo.key_2.x",
        "_INBOX_AIRSTREAM.x",
        // What we tell, and what we keep.
        "feed.acme.till.till.taken",
        "feed.bravo.till.till.taken",
        "ev.1.acme.till.one",
        "tasks.acme.x",
        "peer.i_1",
        "commands",
        // The servers.
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.EVENTS",
        "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.STREAM.DELETE.EVENTS",
        "$JS.API.STREAM.PURGE.COMMANDS",
        "$JS.API.STREAM.MSG.GET.EVENTS",
        "$JS.API.DIRECT.GET.EVENTS",
        "$JS.API.CONSUMER.CREATE.EVENTS",
        "$JS.API.CONSUMER.MSG.NEXT.COMMANDS.queued-commands",
        "$JS.ACK.COMMANDS.queued-commands.1.1.1.1.0",
        "$JS.APP.API.STREAM.INFO.EVENTS",
        "$KV.x.y",
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.USER.INFO",
        "$SYS.REQ.SERVER.PING.CONNZ",
        "$SYS.REQ.ACCOUNT.TENANTS.CONNZ",
        "$SYS.REQ.ACCOUNT.PING.CONNZ",
    ];
    for subject in subjects {
        acme.client.publish(subject, MARK.into()).await.unwrap();
        acme.is_told(&format!("permissions violation for publish to \"{subject}\"")).await;
    }
    assert!(!acme.was_cut());
    // Whatever had got through would have been here before this.
    acme.take("one").await;
    for account in [&mut witness, &mut inside] {
        loop {
            let message = next(account).await;
            assert!(!String::from_utf8_lossy(&message.payload).contains(MARK), "{} got through", message.subject);
            if message.subject.contains("till.one") {
                break;
            }
        }
    }
    assert_eq!((house.messages("EVENTS").await, house.messages("COMMANDS").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_heard_but_ones_own_answers_and_the_feed() {
    let house = House::open(1).await;
    let (acme, bravo) =
        (house.program("token-1", "key_1", "acme").await, house.program("token-2", "key_2", "bravo").await);
    let subjects = [
        ">",
        "*",
        "*.>",
        "*.acme.>",
        "feed.>",
        "feed.*.>",
        "feed.*.till.till.taken",
        "feed.bravo.>",
        "feed.bravo.till.till.taken",
        "feed.airstream.>",
        "_INBOX.>",
        "_INBOX.*.>",
        "_INBOX.acme.>",
        "_INBOX.acme.*.x",
        "_INBOX.acme.key_11.>",
        "_INBOX.bravo.key_2.>",
        "_INBOX_AIRSTREAM.>",
        "cmd.>",
        "cmd.acme.key_1.>",
        "queue.>",
        "work.acme.>",
        "door.>",
        "ev.>",
        "tasks.acme.>",
        "peer.>",
        "$SYS.>",
        "$SYS.REQ.USER.AUTH",
        "$SYS.ACCOUNT.TENANTS.CONNECT",
        "$JS.>",
        "$JS.EVENT.ADVISORY.>",
        "$KV.>",
    ];
    let mut heard = Vec::new();
    for subject in subjects {
        heard.push(acme.client.subscribe(subject).await.unwrap());
        acme.is_told(&format!("permissions violation for subscription to \"{subject}\"")).await;
        // A queue group is no way around.
        let group = acme.client.queue_subscribe(subject, "airstream".to_owned()).await.unwrap();
        acme.is_told(&format!("permissions violation for subscription to \"{subject}\" using queue \"airstream\""))
            .await;
        heard.push(group);
    }
    let mut own = acme.client.subscribe("feed.acme.>").await.unwrap();
    acme.client.flush().await.unwrap();
    bravo.take("two").await;
    acme.take("one").await;
    assert_eq!(next(&mut own).await.subject.as_str(), "feed.acme.till.till.taken", "another tenant's event");
    for mut messages in heard {
        let silent = futures::FutureExt::now_or_never(futures::StreamExt::next(&mut messages));
        assert!(matches!(silent, None | Some(None)), "{silent:?} was heard");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_nowhere_but_to_who_asked() {
    let house = House::open(1).await;
    let (acme, bravo) =
        (house.program("token-1", "key_1", "acme").await, house.program("token-2", "key_2", "bravo").await);
    let mut feed = bravo.client.subscribe("feed.bravo.>").await.unwrap();
    let mut inbox = bravo.client.subscribe("_INBOX.bravo.key_2.x").await.unwrap();
    bravo.client.flush().await.unwrap();
    for reply in [
        "ev.1.acme.till.one",
        "ev.1.bravo.till.two",
        "cmd.bravo.key_2.till.two.take",
        "queue.bravo.key_2.till.two.take",
        "work.bravo.key_2.task",
        "feed.bravo.till.till.taken",
        "_INBOX.bravo.key_2.x",
        "_INBOX.acme.key_2.x",
        "_INBOX.x",
        "$JS.API.STREAM.DELETE.EVENTS",
        "$JS.API.STREAM.PURGE.COMMANDS",
        "$JS.ACK.COMMANDS.queued-commands.1.1.1.1.0",
        "$SYS.REQ.SERVER.PING",
        "peer.i_1",
    ] {
        for asked in ["cmd.acme.key_1.till.one.take", "queue.acme.key_1.till.one.take"] {
            acme.client.publish_with_reply(asked, reply, r#"{"coins":1}"#.into()).await.unwrap();
        }
    }
    // Answered after all of them: none of those was executed, and nothing stands in anybody's history.
    assert_eq!(acme.take("one").await["version"], 1);
    assert_eq!(bravo.take("two").await["version"], 1);
    assert_eq!((house.messages("EVENTS").await, house.messages("COMMANDS").await), (2, 0));
    let first = next(&mut feed).await;
    assert!(first.headers.unwrap().get("Airstream-Cursor").is_some(), "an answer was on the feed");
    assert!(
        futures::FutureExt::now_or_never(futures::StreamExt::next(&mut inbox)).is_none(),
        "an answer came to another"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_mean_something_to_the_server_do_not_reach_a_stream() {
    let house = House::open(1).await;
    let (acme, bravo) =
        (house.program("token-1", "key_1", "acme").await, house.program("token-2", "key_2", "bravo").await);
    let with = |pairs: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        pairs.iter().for_each(|(name, value)| headers.insert(*name, *value));
        headers
    };
    // The same id at once: neither swallows the other's.
    let collision = with(&[("Nats-Msg-Id", "same"), ("Airstream-Command-Id", "same")]);
    let (one, two) = tokio::join!(acme.queue("one", collision.clone()), bravo.queue("two", collision));
    assert!(one.is_ok() && two.is_ok() && one != two, "{one:?} {two:?}");
    for headers in [
        with(&[("Nats-Rollup", "all")]),
        with(&[("Nats-Rollup", "sub")]),
        with(&[("Nats-TTL", "1s")]),
        with(&[("Nats-Expected-Last-Sequence", "77"), ("Nats-Expected-Stream", "EVENTS")]),
        with(&[("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1"), ("Nats-Batch-Commit", "1")]),
        with(&[("Nats-Schedule", "@every 1s"), ("Nats-Schedule-Target", "queue.bravo.key_2.till.two.take")]),
        with(&[("Nats-Stream-Source", "x"), ("Nats-Request-Info", "{}"), ("X-Mine", "x")]),
    ] {
        acme.queue("one", headers).await.unwrap();
    }
    assert_eq!(house.messages("COMMANDS").await, 9, "something was swallowed");
    let stream = house.inside.jetstream().get_stream("COMMANDS").await.unwrap();
    for sequence in 1..=9 {
        let stored = stream.get_raw_message(sequence).await.unwrap();
        let names: Vec<String> = stored.headers.iter().map(|(name, _)| name.to_string()).collect();
        assert!(names.iter().all(|name| name == "Airstream-Command-Id"), "{names:?}");
        assert!(stored.subject.starts_with("queue.acme.key_1.") || stored.subject.starts_with("queue.bravo.key_2."));
    }
    // On a command that waits for its answer they mean nothing, either.
    let headers = with(&[("Nats-Msg-Id", "same"), ("Nats-Rollup", "all"), ("Nats-Expected-Last-Sequence", "77")]);
    let asked = acme.client.request_with_headers("cmd.acme.key_1.till.one.take", headers, r#"{"coins":1}"#.into());
    assert!(String::from_utf8_lossy(&asked.await.unwrap().payload).contains(r#""accepted":true"#));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_one_program_are_queued_in_the_order_in_which_they_were_sent() {
    let house = House::open(1).await;
    let acme = house.program("token-1", "key_1", "acme").await;
    let jetstream = async_nats::jetstream::new(acme.client.clone());
    let mut sent = Vec::new();
    for n in 0..500 {
        let subject = format!("queue.acme.key_1.till.one.c{n}");
        sent.push(jetstream.publish(subject, "{}".into()).await.unwrap());
    }
    for sent in sent {
        sent.await.unwrap();
    }
    let stream = house.inside.jetstream().get_stream("COMMANDS").await.unwrap();
    for n in 0..500 {
        let stored = stream.get_raw_message(n + 1).await.unwrap();
        assert_eq!(stored.subject.as_str(), format!("queue.acme.key_1.till.one.c{n}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_allowed_ends_the_connection_and_reaches_nobody() {
    let house = House::open(1).await;
    house.knows("token-1", super::key("key_1", "acme"));
    let address = house.stack.nats().url.trim_start_matches("nats://").to_owned();
    let (read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let mut lines = BufReader::new(read).lines();
    // The server has said what it allows; a stock client would not even send more.
    assert!(lines.next_line().await.unwrap().unwrap().starts_with("INFO "));
    write.write_all(b"CONNECT {\"auth_token\":\"token-1\",\"verbose\":false}\r\nPING\r\n").await.unwrap();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "PONG");
    write.write_all(b"PUB queue.acme.key_1.till.one.take 2000000\r\n").await.unwrap();
    let said = lines.next_line().await.unwrap().unwrap();
    assert!(said.contains("Maximum Payload Violation"), "{said}");
    eventually("it is cut off", async || !matches!(lines.next_line().await, Ok(Some(_)))).await;
    assert_eq!(house.messages("COMMANDS").await, 0);
}
