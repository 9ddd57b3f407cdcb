//! Steps of kind `http` against a server that misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::serving::Shared;
use crate::stack::Stack;

/// A server that answers the n-th request with the n-th of these, and from then on with the last one.
async fn server(answers: Vec<&'static str>) -> (String, Arc<AtomicUsize>, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (count, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
    let (counted, noted) = (Arc::clone(&count), Arc::clone(&requests));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = answers[counted.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)];
            let noted = Arc::clone(&noted);
            tokio::spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                let read = socket.read(&mut buffer).await.unwrap_or(0);
                noted.lock().unwrap().push(String::from_utf8_lossy(&buffer[..read]).into_owned());
                match answer {
                    "silence" => tokio::time::sleep(Duration::from_secs(30)).await,
                    "hang up" => {}
                    answer => drop(socket.write_all(answer.as_bytes()).await),
                }
            });
        }
    });
    (url, count, requests)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{\"fine\":true}";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_tried_again_until_it_is_answered_and_always_with_the_same_key() {
    let ok = OK.replace("content-length: 12", "content-length: 13");
    let ok: &'static str = Box::leak(ok.into_boxed_str());
    let broken = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let (url, count, requests) = server(vec![broken, "hang up", "silence", ok]).await;
    let stack = Stack::up(&[]);
    let http = stack.http();
    let step = json!({ "id": "call", "http": { "method": "POST", "url": url }, "timeout": 1, "retry": { "max": 5, "delay": 0.05 } });
    http.define("calling", json!([step])).await;
    http.start("calling", "c1", json!({ "n": 7 })).await;
    let run = http.run_in("c1", &["completed", "failed"]).await;
    assert_eq!(
        run["output"],
        json!({ "status": 200, "content_type": "application/json", "body": { "fine": true } }),
        "{run:#}"
    );
    assert_eq!((count.load(Ordering::SeqCst), &run["steps"][0]["attempt"]), (4, &json!(4)));
    let requests = requests.lock().unwrap();
    // One key for all attempts: the one that timed out may have had its effect.
    let key = |request: &String| {
        let line = request.lines().find(|line| line.to_lowercase().starts_with("idempotency-key: fx_"));
        line.unwrap_or_else(|| panic!("no key: {request}")).to_owned()
    };
    assert!(requests.iter().all(|request| key(request) == key(&requests[0])), "{requests:?}");
    assert!(requests[0].contains(r#""input":{"n":7}"#), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_wrong_is_not_repeated_and_the_reason_is_kept() {
    let (url, count, _) = server(vec!["HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnope"]).await;
    let stack = Stack::up(&[]);
    let http = stack.http();
    http.define("wrong", json!([{ "id": "call", "http": { "method": "GET", "url": url } }])).await;
    http.start("wrong", "w1", json!(null)).await;
    let run = http.run_in("w1", &["completed", "failed"]).await;
    assert_eq!((&run["status"], &run["error"]["type"]), (&json!("failed"), &json!("http_404")), "{run:#}");
    assert!(run["error"]["message"].as_str().unwrap().contains("nope"));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_to_nobody_inside_unless_the_configuration_says_so() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine";
    let (url, count, _) = server(vec![ok]).await;
    let port = url.trim_end_matches("/hook").rsplit(':').next().unwrap().to_owned();
    let shared = Shared::new(5_000).await;
    let called = async |http: &crate::stack::Http, name: &str, host: &str| {
        let url = format!("http://{host}:{port}/hook");
        http.define(name, json!([{ "id": "call", "http": { "method": "POST", "url": url } }])).await;
        http.start(name, name, json!(null)).await;
        http.run_in(name, &["completed", "failed"]).await
    };
    let closed = shared.serve("closed").await;
    for (n, host) in ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"].into_iter().enumerate() {
        let run = called(&closed.http, &format!("in{n}"), host).await;
        assert_eq!((&run["status"], &run["error"]["type"]), (&json!("failed"), &json!("address_refused")), "{run:#}");
        assert_eq!(run["steps"][0]["attempt"], 1, "the answer will not be another one: {run:#}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    closed.stop();
    let allowed = [("AIRSTREAM__WORKFLOWS__ALLOW_PRIVATE", "127.0.0.0/8".to_owned())];
    let open = shared.serve_with("open", &allowed).await;
    assert_eq!(called(&open.http, "out", "localhost").await["output"]["body"], "fine");
    assert_eq!(called(&open.http, "other", "0.0.0.0").await["error"]["type"], "address_refused");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}
