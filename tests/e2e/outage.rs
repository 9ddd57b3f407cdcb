//! Servers that are gone for a while: who asks is told when to come back, and everything goes on by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stories::eventually;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;

use crate::people::People;
use crate::serving::Shared;

/// How long a server is gone.
const GONE: Duration = Duration::from_secs(10);

/// A way to a server that can be cut: connections break, and new ones are refused.
#[derive(Clone)]
struct Way {
    port: u16,
    open: Arc<AtomicBool>,
    cut: Arc<Notify>,
}

/// Where a way leads.
#[derive(Clone)]
enum To {
    Tcp(String),
    Unix(String),
}

impl Way {
    async fn to(there: To) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Self { port, open: Arc::new(AtomicBool::new(true)), cut: Arc::default() };
        let ours = way.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if ours.open.load(Ordering::SeqCst) {
                    tokio::spawn(ours.clone().pass(client, there.clone()));
                }
            }
        });
        way
    }

    async fn pass(self, client: TcpStream, there: To) {
        match there {
            To::Tcp(address) => self.both(client, TcpStream::connect(address).await.unwrap()).await,
            To::Unix(path) => self.both(client, UnixStream::connect(path).await.unwrap()).await,
        }
    }

    async fn both(self, mut client: TcpStream, mut server: impl AsyncRead + AsyncWrite + Unpin) {
        let cut = self.cut.notified();
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            () = cut => {}
        }
    }

    fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        self.cut.notify_waiters();
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

/// A value of a URL's query.
fn part<'a>(url: &'a str, name: &str) -> &'a str {
    let query = url.split_once('?').unwrap().1;
    let found = query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {url}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_while_a_server_is_gone_is_told_to_come_back_and_stays_signed_in() {
    let shared = Shared::new(2_000).await;
    let nats = Way::to(To::Tcp(shared.servers.nats_url.trim_start_matches("nats://").to_owned())).await;
    let url = &shared.servers.postgres_url;
    let database = url.trim_start_matches("postgres:///").split('?').next().unwrap();
    let postgres = Way::to(To::Unix(format!("{}/.s.PGSQL.5432", part(url, "host").replace("%2F", "/")))).await;
    let (user, password) = (part(url, "user"), part(url, "password"));
    let ways = [
        ("AIRSTREAM__NATS__URL", format!("nats://127.0.0.1:{}", nats.port)),
        ("AIRSTREAM__POSTGRES__URL", format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", postgres.port)),
    ];
    let serving = shared.serve_with("one", &ways).await;
    let people = People::at(&shared, &serving);
    let ann = people.join("ann").await;
    ann.http.get("/v1/me").await;
    let mut refresh_token = ann.refresh_token.clone();

    for (server, way) in [("PostgreSQL", &postgres), ("NATS", &nats)] {
        way.close();
        let (began, mut asked) = (Instant::now(), 0);
        while began.elapsed() < GONE {
            let asks: [(&str, &str, Option<Value>); 5] = [
                ("GET", "/v1/me", None),
                ("GET", "/v1/me/sessions", None),
                ("POST", "/v1/auth/login", Some(json!({ "login": "ann", "password": "wrong, but who knows" }))),
                ("PATCH", "/v1/me", Some(json!({ "name": "Ann" }))),
                // Again and again with the same token, until somebody answers.
                ("POST", "/v1/auth/refresh", Some(json!({ "refresh_token": refresh_token }))),
            ];
            let asks = asks.map(async |(method, path, body)| {
                let mut request = ann.http.request(method, path);
                if let Some(body) = body {
                    request = request.header("content-type", "application/json").body(body.to_string());
                }
                let response = request.send().await.unwrap();
                let status = response.status().as_u16();
                let wait = response.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
                let text = response.text().await.unwrap();
                match status {
                    // What needs the other server only, or is known already. A login may be wrong, or one too many.
                    200 | 401 => assert!(!text.contains("session_over"), "{server}: {path}: {text}"),
                    429 => {}
                    503 => assert!(wait.is_some(), "{server}: {path}: no Retry-After: {text}"),
                    _ => panic!("{server} is gone, and {method} {path} is answered with {status}: {text}"),
                }
                (status, serde_json::from_str::<Value>(&text).unwrap_or_default())
            });
            let answers = futures::future::join_all(asks).await;
            if let Some(next) = answers.iter().find_map(|(_, answer)| answer["refresh_token"].as_str()) {
                refresh_token = next.to_owned();
            }
            let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
            assert!(statuses.contains(&503), "{server} is gone and nobody misses it: {statuses:?}");
            asked += statuses.len();
        }
        assert!(asked > 0);
        way.open();
        // Without a restart, and without signing in again.
        eventually("everything goes on", async || {
            let edited = ann.http.request("PATCH", "/v1/me").header("content-type", "application/json");
            let edited =
                edited.body(json!({ "name": format!("Ann after {server}") }).to_string()).send().await.unwrap();
            edited.status().is_success()
        })
        .await;
        ann.http.get("/v1/me/sessions").await;
    }
    let refreshed = people.post("/v1/auth/refresh", json!({ "refresh_token": refresh_token }), 200).await;
    assert_eq!(refreshed["user"]["name"], "Ann after NATS");
}
