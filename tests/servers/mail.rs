//! Mails out of the outbox, to a real mail server.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use mail::{Carrier, Mailbox, Sender, Server, Smtp};
use projections::Database;
use projections::identity::PgKeyring;
use projections::mail::{Mail, Outbox};
use runtime::lease::Lease;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use stories::guests::{Killed, python};
use stories::{Servers, eventually};
use tokio_util::sync::CancellationToken;
use vault::{MasterKey, Vault};

/// A mail server in Python.
struct MailServer {
    _process: Killed,
    port: u16,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl MailServer {
    fn start(flags: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/mail/server.py");
        let mut command = Command::new(python(&["aiosmtpd==1.4.6", "trustme==1.2.1"]));
        let mut process = command.arg(script).args(flags).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().expect("a mail server that starts").unwrap()).unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&taken);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { _process: Killed(process), port: first["port"].as_u64().unwrap().try_into().unwrap(), taken }
    }

    fn taken(&self) -> Vec<Value> {
        self.taken.lock().unwrap().clone()
    }

    fn to(&self, address: &str) -> Vec<Value> {
        self.taken().into_iter().filter(|mail| mail["to"] == serde_json::json!([address])).collect()
    }
}

/// An outbox on a database of its own, and who empties it.
struct House {
    database: Database,
    vault: Vault,
    outbox: Outbox,
    stop: CancellationToken,
}

impl House {
    async fn new() -> Self {
        // The one that `main` installs; another test may have been faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database = Servers::fresh().await.unwrap().database;
        let master = MasterKey::parse(&MasterKey::generate()).unwrap();
        let vault = Vault::new(master, Arc::new(PgKeyring::new(&database)));
        let outbox = Outbox::new(&database, vault.clone());
        Self { database, vault, outbox, stop: CancellationToken::new() }
    }

    fn drain(&self, carrier: impl Carrier) {
        let lease = Lease::permanent(mail::LEASE);
        tokio::spawn(mail::run(self.outbox.clone(), Arc::new(carrier), lease, self.stop.clone()));
    }

    fn drain_to(&self, url: &str) {
        self.drain(smtp(url, None));
    }

    async fn put(&self, id: &str, to: &str) {
        let mail = Mail {
            id: id.into(),
            to: to.into(),
            kind: "verify-email",
            subject: "Grüße aus dem Test".into(),
            text: format!("Hello {to},\n\nhttps://example.org/verify?token=a=b\n"),
            about: Some(format!("usr_{id}")),
        };
        self.outbox.put(mail).await.unwrap();
    }

    /// State, tries, reason and whether the content is there.
    async fn row(&self, id: &str) -> (&'static str, i32, String, bool) {
        let row: (bool, bool, i32, Option<String>, bool) = sqlx::query_as(
            "SELECT settled_at IS NOT NULL, sent, tries, reason, content IS NOT NULL FROM mail.outbox WHERE id = $1",
        )
        .bind(id)
        .fetch_one(self.database.pool())
        .await
        .unwrap();
        let state = match (row.0, row.1) {
            (false, _) => "waiting",
            (true, true) => "sent",
            (true, false) => "given up",
        };
        (state, row.2, row.3.unwrap_or_default(), row.4)
    }

    async fn comes_to(&self, id: &str, state: &str) -> (i32, String) {
        eventually(&format!("{id} is {state}"), async || self.row(id).await.0 == state).await;
        let (_, tries, reason, content) = self.row(id).await;
        assert_eq!(content, state == "waiting", "{id}: what it says is kept while it can be sent, and no longer");
        (tries, reason)
    }

    async fn sql(&self, text: &str) {
        sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(self.database.pool()).await.unwrap();
    }

    /// As if time had passed.
    async fn hasten(&self, id: &str) {
        self.sql(&format!("UPDATE mail.outbox SET due_at = now() WHERE id = '{id}'")).await;
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn smtp(url: &str, authority: Option<&[u8]>) -> Smtp {
    let sender = Sender::parse("Airstream <no-reply@mail.example.org>").unwrap();
    Smtp::new(Server::parse(url).unwrap(), sender, authority).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_put_once_sent_once_and_then_forgotten() {
    let (house, server) = (House::new().await, MailServer::start(&[]));
    join_all((0..8).map(|_| house.put("1", "ann@example.org"))).await;
    let (text,): (String,) = sqlx::query_as("SELECT string_agg(outbox::text, '') FROM mail.outbox")
        .fetch_one(house.database.pool())
        .await
        .unwrap();
    assert!(text.contains("verify-email") && !text.contains("ann@") && !text.contains("token"), "{text}");
    house.drain_to(&format!("smtp://localhost:{}?tls=none", server.port));
    assert_eq!(house.comes_to("1", "sent").await, (1, String::new()));
    house.put("2", "bob@example.org").await;
    house.comes_to("2", "sent").await;
    house.put("1", "ann@example.org").await;
    house.put("3", "ann@example.org").await;
    house.comes_to("3", "sent").await;
    let [first, second] = server.to("ann@example.org").try_into().unwrap();
    assert_eq!(first["subject"], "Grüße aus dem Test");
    assert_eq!(first["text"], "Hello ann@example.org,\n\nhttps://example.org/verify?token=a=b");
    assert_eq!(first["sender"], "no-reply@mail.example.org");
    assert_eq!(first["defects"], serde_json::json!([]));
    assert_ne!(first["id"], second["id"]);
    assert_eq!(server.taken().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_does_not_take_now_is_tried_again_and_what_it_never_takes_is_not() {
    let (house, server) = (House::new().await, MailServer::start(&[]));
    for (id, to) in [("busy", "busy1@a.org"), ("nobody", "nobody@a.org"), ("content", "content@a.org")] {
        house.put(id, to).await;
    }
    house.drain_to(&format!("smtp://localhost:{}?tls=none", server.port));
    let (tries, reason) = house.comes_to("nobody", "given up").await;
    assert_eq!(tries, 1);
    assert!(reason.contains("550") && reason.contains("nobody of that name") && !reason.contains("a.org"), "{reason}");
    assert!(house.comes_to("content", "given up").await.1.contains("we do not like"));
    for tries in 1..=2 {
        eventually("it is put off", async || {
            let (state, tried, reason, _) = house.row("busy").await;
            state == "waiting" && tried == tries && reason.contains("greylisted")
        })
        .await;
        house.hasten("busy").await;
    }
    assert_eq!(house.comes_to("busy", "sent").await.0, 3);
    assert_eq!(server.to("busy1@a.org").len(), 1);
    // An address that no letter of this server's dialect can say.
    house.put("letters", "änn@a.org").await;
    assert!(house.comes_to("letters", "given up").await.1.contains("SMTPUTF8"));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_mails_wait_for_a_day() {
    let house = House::new().await;
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for n in 0..20 {
        house.put(&n.to_string(), &format!("p{n}@a.org")).await;
    }
    house.put("old", "old@a.org").await;
    house.sql("UPDATE mail.outbox SET created_at = now() - interval '25 hours' WHERE id = 'old'").await;
    house.drain_to(&format!("smtp://localhost:{port}?tls=none"));
    house.comes_to("old", "given up").await;
    for n in 0..20 {
        eventually("each was tried", async || house.row(&n.to_string()).await.1 == 1).await;
    }
    let (state, _, reason, content) = house.row("7").await;
    assert!(state == "waiting" && content && !reason.is_empty(), "{reason}");
    let waiting = house.outbox.waiting().await.unwrap();
    assert_eq!(waiting.mails, 20);
    assert!(waiting.next_due.unwrap() <= Duration::from_secs(5), "{waiting:?}");
    let server = MailServer::start(&["--port", &port.to_string()]);
    house.sql("UPDATE mail.outbox SET due_at = now()").await;
    for n in 0..20 {
        house.comes_to(&n.to_string(), "sent").await;
    }
    assert_eq!(server.taken().len(), 20);
    // Four at a time, and connections are used again.
    let peers: std::collections::BTreeSet<u64> =
        server.taken().iter().map(|mail| mail["peer"].as_u64().unwrap()).collect();
    assert!(peers.len() <= 8, "{} connections for twenty mails", peers.len());
}

fn authority(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_believed_by_its_certificate_and_believes_us_by_our_password() {
    for (security, scheme) in [("starttls", "smtp"), ("tls", "smtps")] {
        let (_folder, pem) = authority("authority.pem");
        let flags = ["--security", security, "--login", "air:st ream", "--authority", pem.to_str().unwrap()];
        let (house, server) = (House::new().await, MailServer::start(&flags));
        let authority = std::fs::read(&pem).unwrap();
        let url = |password: &str| format!("{scheme}://air:{password}@localhost:{}", server.port);
        house.put("1", "ann@a.org").await;
        for (doubtful, said) in [
            // Somebody whom nobody vouches for, and somebody who vouches for another name.
            (smtp(&url("st%20ream"), None), "ertificate"),
            (smtp(&url("st%20ream").replace("localhost", "127.0.0.1"), Some(&authority)), "ertificate"),
            (smtp(&url("wrong"), Some(&authority)), "535"),
            (smtp(&format!("{scheme}://localhost:{}", server.port), Some(&authority)), "530"),
        ] {
            let unsent = carried(&house, doubtful).await;
            assert!(matches!(&unsent, mail::Unsent::Away(reason) if reason.contains(said)), "{said}: {unsent:?}");
        }
        house.drain(smtp(&url("st%20ream"), Some(&authority)));
        house.hasten("1").await;
        house.comes_to("1", "sent").await;
        let [mail] = server.taken().try_into().unwrap();
        assert!(mail["encrypted"] == true && mail["login"] == "air", "{mail}");
    }
    // Without STARTTLS nothing is said, least of all a password.
    let (house, server) = (House::new().await, MailServer::start(&[]));
    house.put("1", "ann@a.org").await;
    let unsent = carried(&house, smtp(&format!("smtp://air:secret@localhost:{}", server.port), None)).await;
    assert!(matches!(&unsent, mail::Unsent::Away(reason) if reason.contains("STARTTLS")), "{unsent:?}");
}

/// What comes of handing over the one mail in the outbox.
async fn carried(house: &House, carrier: Smtp) -> mail::Unsent {
    house.hasten("1").await;
    let [mail] = house.outbox.claim(1, Duration::from_secs(60)).await.unwrap().try_into().unwrap();
    carrier.carry(&mail).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_whose_sender_died_goes_out_once_its_claim_is_over() {
    let (house, server) = (House::new().await, MailServer::start(&[]));
    for n in 0..40 {
        house.put(&n.to_string(), &format!("p{n}@a.org")).await;
    }
    // Many at once, and none has what another has.
    let claims = join_all((0..8).map(|_| house.outbox.claim(4, Duration::from_secs(300)))).await;
    let mut claimed: Vec<String> = claims.into_iter().flat_map(Result::unwrap).map(|mail| mail.id).collect();
    claimed.sort();
    let all = claimed.len();
    claimed.dedup();
    assert_eq!((claimed.len(), all), (32, 32));
    house.drain_to(&format!("smtp://localhost:{}?tls=none", server.port));
    eventually("the others are sent", async || server.taken().len() == 8).await;
    house.sql("UPDATE mail.outbox SET due_at = now() WHERE settled_at IS NULL").await;
    for n in 0..40 {
        house.comes_to(&n.to_string(), "sent").await;
    }
    // Whoever was thought dead and comes back too late changes nothing.
    let id = &claimed[0];
    house.outbox.failed(id, 1, Duration::ZERO, "late").await.unwrap();
    house.outbox.given_up(id, 1, "late").await.unwrap();
    assert_eq!(house.row(id).await, ("sent", 2, String::new(), false));
    assert_eq!(server.taken().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_to_who_was_erased() {
    let house = House::new().await;
    house.put("kept", "ann@a.org").await;
    house.put("gone", "bob@a.org").await;
    house.vault.destroy("usr_kept").await.unwrap();
    house.outbox.erase("usr_gone").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sender = Sender::parse("no-reply@a.org").unwrap();
    house.drain(Mailbox::new(folder.path().join("mailbox"), sender));
    assert!(house.comes_to("kept", "given up").await.1.contains("erased"));
    // And nothing is kept about them from then on.
    house.put("kept2", "ann@a.org").await;
    let again = Mail {
        id: "again".into(),
        to: "ann@a.org".into(),
        kind: "notice",
        subject: "s".into(),
        text: "t".into(),
        about: Some("usr_kept".into()),
    };
    house.outbox.put(again.clone()).await.unwrap();
    house.outbox.put(Mail { id: "invited".into(), about: None, ..again }).await.unwrap();
    house.comes_to("invited", "sent").await;
    house.comes_to("kept2", "sent").await;
    let (left,): (i64,) = sqlx::query_as("SELECT count(*) FROM mail.outbox WHERE id IN ('again', 'gone')")
        .fetch_one(house.database.pool())
        .await
        .unwrap();
    assert_eq!(left, 0);
    assert_eq!(std::fs::read_dir(folder.path().join("mailbox")).unwrap().count(), 2);
}
