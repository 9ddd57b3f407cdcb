//! What a development stack would have sent, as somebody who develops on it sees it.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::stack::{Http, Stack};

async fn register(http: &Http, email: &str) {
    let wanted = json!({ "email": email, "password": "correct horse battery staple" });
    http.json("POST", "/v1/auth/register", Some(wanted), 202).await;
}

/// The page, once it shows this.
async fn page_with(http: &Http, shown: &str) -> String {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let page = http.request("GET", "/mailbox").send().await.unwrap().text().await.unwrap();
        if page.contains(shown) {
            return page;
        }
        assert!(Instant::now() < until, "the mailbox does not show {shown}: {page}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_a_file_and_a_page_for_this_machine_only() {
    let stack = Stack::up(&[]);
    let http = Http { token: None, ..stack.http() };
    assert_eq!(stack.status()["mailbox"], format!("{}/mailbox", http.url));
    page_with(&http, "No mail has been sent yet.").await;
    register(&http, "o'hara@example.org").await;
    let page = page_with(&http, "o&#39;hara@example.org").await;
    let path = page.split("href=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(path.starts_with("/mailbox/") && page.contains("exists in development only"), "{page}");
    let letter = http.request("GET", path).send().await.unwrap();
    let policy = letter.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let code = letter.text().await.unwrap().split("aco_").nth(1).unwrap()[..32].to_owned();
    let confirm = json!({ "code": format!("aco_{code}") });
    http.json("POST", "/v1/auth/verify-email", Some(confirm), 200).await;
    let file = stack.data_dir().join("mailbox").join(path.rsplit('/').next().unwrap());
    assert!(std::fs::read_to_string(&file).unwrap().contains(&code));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    for (name, value) in [("host", "evil.example.org"), ("x-forwarded-for", "192.0.2.7")] {
        for path in ["/mailbox", path] {
            let asked = http.request("GET", path).header(name, value).send().await.unwrap();
            assert_eq!(asked.status().as_u16(), 403, "{name}: {value}");
        }
    }
    http.json("GET", "/mailbox/..%2Fairstream.json", None, 404).await;
    // What identity knows about people is in no row that anybody can read.
    let mut postgres = stack.postgres().await;
    let lines = sqlx::query_scalar("SELECT outbox::text FROM mail.outbox").fetch_all(&mut postgres);
    for line in lines.await.unwrap() {
        let line: String = line;
        assert!(!line.contains("example.org") && !line.contains("aco_"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_mail_server_there_is_no_mailbox() {
    // Nobody listens there, which is nobody's business but the sender's.
    let mail = [("AIRSTREAM__MAIL__URL", "smtp://127.0.0.1:1?tls=none"), ("AIRSTREAM__MAIL__FROM", "air@example.org")];
    let stack = Stack::up_with(&[], &mail);
    assert!(stack.status()["mailbox"].is_null());
    stack.http().json("GET", "/mailbox", None, 404).await;
}
