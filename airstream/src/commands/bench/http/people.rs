//! People for measuring: registered and signed in as anybody would be.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use reqwest::Client;
use serde_json::{Value, json};

/// Everybody's password here.
pub(super) const PASSWORD: &str = "correct horse battery";

/// The door for people, and their mail.
#[derive(Clone)]
pub(super) struct People {
    pub(super) client: Client,
    pub(super) base: String,
    pub(super) mailbox: PathBuf,
}

impl People {
    async fn post(&self, path: &str, body: Value, token: Option<&str>) -> anyhow::Result<Value> {
        let mut request = self.client.post(format!("{}{path}", self.base)).json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?;
        let (status, answer) = (response.status(), response.json::<Value>().await.unwrap_or_default());
        if !status.is_success() {
            bail!("{path} was answered with {status}: {answer}");
        }
        Ok(answer)
    }

    /// Registers and confirms.
    pub(super) async fn person(&self, email: &str) -> anyhow::Result<()> {
        self.post("/v1/auth/register", json!({ "email": email, "password": PASSWORD }), None).await?;
        let code = self.code(email).await?;
        self.post("/v1/auth/verify-email", json!({ "code": code }), None).await?;
        Ok(())
    }

    /// A token of somebody who owns a tenant.
    pub(super) async fn owner(&self, email: &str) -> anyhow::Result<String> {
        self.person(email).await?;
        let text = |value: &Value, name: &str| {
            let found = value.get(name).and_then(Value::as_str).map(str::to_owned);
            found.with_context(|| format!("no `{name}` in {value}"))
        };
        let signed_in = self.post("/v1/auth/login", json!({ "login": email, "password": PASSWORD }), None).await?;
        let token = text(&signed_in, "access_token")?;
        let tenant = self.post("/v1/tenants", json!({ "name": "Bench" }), Some(&token)).await?;
        let body = json!({ "tenant": text(&tenant, "id")? });
        text(&self.post("/v1/auth/tenant", body, Some(&token)).await?, "access_token")
    }

    async fn code(&self, email: &str) -> anyhow::Result<String> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            for entry in std::fs::read_dir(&self.mailbox)?.flatten() {
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                if text.contains(&format!("To: {email}"))
                    && let Some(code) = text.split_whitespace().find(|word| word.starts_with("aco_"))
                {
                    return Ok(code.to_owned());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("no mail came for {email}")
    }
}
