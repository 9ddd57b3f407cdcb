//! The HTTP door from outside: the local stack's, or the one named by `--url`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde_json::Value;

use crate::contexts::{self, Held, Saved, Session};
use crate::failure::{Exit, Failure, Outcome};
use crate::state_file::Running;

/// Longer than the server's own limit, so that its answer is seen rather than ours.
const PATIENCE: Duration = Duration::from_secs(45);
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// The header that makes a repetition harmless.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Which server is meant. The local one is looked up again for every connection: it may have been restarted elsewhere.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Local {
        data_dir: PathBuf,
        token: Option<String>,
    },
    Given {
        url: String,
        token: Option<String>,
    },
    /// Where somebody is signed in.
    Context(String),
}

impl Target {
    /// The stack in this data directory, with its own token.
    pub(crate) fn local(data_dir: &Path) -> Target {
        Target::Local { data_dir: data_dir.to_owned(), token: None }
    }
}

/// Query parameters.
pub(crate) type Query = Vec<(&'static str, String)>;

/// A way to the server.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    target: Target,
}

impl Client {
    pub(crate) fn new(target: Target) -> Outcome<Client> {
        let plain = match &target {
            Target::Local { .. } => true,
            Target::Given { url, .. } => url.starts_with("http://"),
            Target::Context(name) => {
                let saved = saved(name)?;
                saved.url.is_none_or(|url| url.starts_with("http://"))
            }
        };
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_PATIENCE)
            .user_agent(concat!("airstream/", env!("CARGO_PKG_VERSION")));
        if plain {
            // Without TLS no certificates are needed, and a machine without any is no obstacle.
            builder = builder.tls_certs_only([]);
        }
        if matches!(target, Target::Local { .. }) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| Failure::because(Exit::Failed, &error))?;
        Ok(Client { http, target })
    }

    async fn request(&self, method: Method, path: &str) -> Outcome<RequestBuilder> {
        let (base, token) = match &self.target {
            Target::Context(name) => {
                let (base, token) = self.session(name).await?;
                (base, Some(token))
            }
            Target::Given { url, token } => (url.trim_end_matches('/').to_owned(), token.clone()),
            Target::Local { data_dir, token } => {
                let running = Running::required(data_dir)?;
                // Who gives one wants to know whether it is right.
                (running.http, token.clone().or(Some(running.token)))
            }
        };
        let mut request = self.http.request(method, format!("{base}{path}"));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        Ok(request)
    }

    /// A request on nobody's behalf: to sign in.
    fn anonymous(&self, base: &str, path: &str, body: &impl Serialize) -> RequestBuilder {
        self.http.post(format!("{}{path}", base.trim_end_matches('/'))).json(body).timeout(PATIENCE)
    }

    /// The address and a token that lasts a while; the session is refreshed first if it has to be.
    async fn session(&self, name: &str) -> Outcome<(String, String)> {
        let saved = saved(name)?;
        let base = base_of(&saved)?;
        let logged_out = || {
            Failure::new(Exit::Auth, format!("you are not logged in to `{name}` ({})", saved.place()))
                .hint(format!("log in with `airstream login --context {name}`"))
        };
        let session = saved.session.clone().ok_or_else(logged_out)?;
        if lasts(&session) {
            return Ok((base, session.access_token));
        }
        // One of several processes refreshes; a refresh token works once.
        let mut held =
            tokio::task::spawn_blocking(Held::take).await.map_err(|error| Failure::because(Exit::Failed, &error))??;
        let kept = held.store.contexts.get(name).and_then(|saved| saved.session.clone()).ok_or_else(logged_out)?;
        if lasts(&kept) {
            return Ok((base, kept.access_token));
        }
        let body = serde_json::json!({ "refresh_token": kept.refresh_token });
        let answer = async { document(send(self.anonymous(&base, "/v1/auth/refresh", &body)).await?).await }.await;
        let answer = answer.map_err(|failure| match failure.exit {
            Exit::Auth => logged_out(),
            _ => failure,
        })?;
        let fresh = session_of(&answer)?;
        let token = fresh.access_token.clone();
        if let Some(saved) = held.store.contexts.get_mut(name) {
            saved.session = Some(fresh);
        }
        held.keep()?;
        Ok((base, token))
    }

    /// Sends a document on nobody's behalf.
    pub(crate) async fn open_post(&self, path: &str, body: &impl Serialize) -> Outcome<Value> {
        document(send(self.anonymous(&self.base()?, path, body)).await?).await
    }

    /// Sends a form on nobody's behalf, as OAuth has it. Its errors say `error`, not `code`.
    pub(crate) async fn open_form(&self, path: &str, form: &[(&str, &str)]) -> Outcome<Value> {
        let base = self.base()?;
        let request = self.http.post(format!("{}{path}", base.trim_end_matches('/'))).form(form).timeout(PATIENCE);
        document(send(request).await?).await
    }

    /// Sends a document with a token that is not kept yet.
    pub(crate) async fn post_as(&self, token: &str, path: &str, body: &impl Serialize) -> Outcome<Value> {
        let request = self.anonymous(&self.base()?, path, body).header(AUTHORIZATION, format!("Bearer {token}"));
        document(send(request).await?).await
    }

    fn base(&self) -> Outcome<String> {
        match &self.target {
            Target::Given { url, .. } => Ok(url.clone()),
            Target::Local { data_dir, .. } => Ok(Running::required(data_dir)?.http),
            Target::Context(name) => base_of(&saved(name)?),
        }
    }

    /// Which server is meant.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Which server is meant, for people.
    pub(crate) fn place(&self) -> String {
        self.base().unwrap_or_default()
    }

    /// Changes, or removes.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let mut request = self.request(method, path).await?.timeout(PATIENCE);
        if let Some(body) = body {
            request = request.json(body);
        }
        document(send(request).await?).await
    }

    /// Reads a document.
    pub(crate) async fn get(&self, path: &str, query: &Query) -> Outcome<Value> {
        let request = self.request(Method::GET, path).await?.query(query).header(ACCEPT, "application/json");
        document(send(request.timeout(PATIENCE)).await?).await
    }

    /// Sends a document.
    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> Outcome<Value> {
        document(send(self.request(Method::POST, path).await?.json(body).timeout(PATIENCE)).await?).await
    }

    /// Sends a command. Its id makes the next try harmless, so a failure that leaves the outcome open says how to try.
    pub(crate) async fn command(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        command_id: &str,
    ) -> Outcome<Value> {
        let request =
            self.request(method, path).await?.header(IDEMPOTENCY_KEY, command_id).json(body).timeout(PATIENCE);
        let answer = async { document(send(request).await?).await };
        answer.await.map_err(|failure| match failure.exit {
            Exit::Unavailable | Exit::Timeout if failure.hint.is_none() || failure.problem.is_some() => {
                failure.hint(format!("ask again with --command-id {command_id}: what has been done is not done twice"))
            }
            _ => failure,
        })
    }

    /// Starts something long that reports in lines of JSON. Each document goes to `on_line`, in order.
    pub(crate) async fn lines(&self, path: &str, mut on_line: impl FnMut(Value) -> Outcome) -> Outcome {
        let request = self.request(Method::POST, path).await?.header(ACCEPT, "application/x-ndjson");
        let mut body = send(request).await?.bytes_stream();
        let mut waiting = Vec::new();
        while let Some(bytes) = body.next().await {
            waiting.extend_from_slice(&bytes.map_err(|error| unreachable_server(&error))?);
            while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = waiting.drain(..=end).collect();
                if !line.trim_ascii().is_empty() {
                    on_line(serde_json::from_slice(&line).map_err(|error| not_ours(&error.to_string()))?)?;
                }
            }
        }
        if !waiting.trim_ascii().is_empty() {
            on_line(serde_json::from_slice(&waiting).map_err(|error| not_ours(&error.to_string()))?)?;
        }
        Ok(())
    }

    /// Opens a stream of server-sent events.
    pub(crate) async fn events(&self, query: &Query, last_event_id: Option<&str>) -> Outcome<Response> {
        let mut request =
            self.request(Method::GET, "/v1/events").await?.query(query).header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = send(request).await?;
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.starts_with("text/event-stream") { Ok(response) } else { Err(not_ours("it does not stream events")) }
    }

    /// Whether the server says that it is ready. `None`: it does not say anything.
    pub(crate) async fn ready(&self) -> Option<bool> {
        let request = self.request(Method::GET, "/readyz").await.ok()?.timeout(Duration::from_secs(2));
        request.send().await.ok().map(|response| response.status().is_success())
    }
}

fn saved(name: &str) -> Outcome<Saved> {
    contexts::load()?.contexts.remove(name).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no context `{name}`")).hint("`airstream context ls` lists them")
    })
}

fn base_of(saved: &Saved) -> Outcome<String> {
    match (&saved.url, &saved.data_dir) {
        (Some(url), _) => Ok(url.trim_end_matches('/').to_owned()),
        (None, Some(data_dir)) => Ok(Running::required(data_dir)?.http),
        (None, None) => Err(Failure::new(Exit::Failed, "the context names no server")),
    }
}

/// Whether its token is good for another request.
fn lasts(session: &Session) -> bool {
    session.expires_at > runtime::clock::now().timestamp() + 30
}

/// The session in the answer to a login or a refresh.
pub(crate) fn session_of(answer: &Value) -> Outcome<Session> {
    let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let (Some(access_token), Some(refresh_token)) = (text("/access_token"), text("/refresh_token")) else {
        return Err(not_ours("it signs nobody in"));
    };
    let lasts = answer.get("expires_in").and_then(Value::as_i64).unwrap_or_default();
    Ok(Session {
        user: text("/user/email").or_else(|| text("/user/id")).unwrap_or_default(),
        tenant: text("/tenant"),
        access_token,
        refresh_token,
        expires_at: runtime::clock::now().timestamp() + lasts,
    })
}

/// Sends, and turns every refusal into a failure.
async fn send(request: RequestBuilder) -> Outcome<Response> {
    let response = request.send().await.map_err(|error| unreachable_server(&error))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    let problem = serde_json::from_str(&text).unwrap_or(Value::Null);
    if problem.is_object() {
        return Err(Failure::of_problem(status.as_u16(), problem));
    }
    Err(Failure::new(
        Exit::of_status(status.as_u16()),
        format!("the server answered with {status} and without a reason"),
    ))
}

async fn document(response: Response) -> Outcome<Value> {
    let text = response.text().await.map_err(|error| unreachable_server(&error))?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).map_err(|error| not_ours(&error.to_string()))
}

fn unreachable_server(error: &reqwest::Error) -> Failure {
    let at = error.url().map(|url| format!(" at {}", url.origin().ascii_serialization())).unwrap_or_default();
    if error.is_builder() {
        return Failure::usage(format!("the server's address is not usable: {}", innermost(error)))
            .hint("give it as --url http://host:port");
    }
    if error.is_timeout() && !error.is_connect() {
        return Failure::new(Exit::Timeout, format!("the server{at} did not answer in time"));
    }
    if error.is_connect() {
        return Failure::new(Exit::Unavailable, format!("nobody answers{at}: {}", innermost(error)))
            .hint("start the stack with `airstream up`, or name a server with --url and --token");
    }
    Failure::new(Exit::Unavailable, format!("the connection to the server{at} broke: {}", innermost(error)))
}

/// The outer layers of a connection error say only that there is one.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn not_ours(why: &str) -> Failure {
    Failure::new(Exit::Failed, format!("the answer is not one of an airstream server: {why}"))
        .hint("check --url; `airstream version` and the server may also be of different versions")
}

/// One segment of a path: whatever a user types stays one segment.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'~')
            || (byte == b'.' && !text.trim_matches('.').is_empty())
        {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_one() {
        for (text, encoded) in
            [("wf_1", "wf_1"), ("p1-2a.0", "p1-2a.0"), ("a/b?c", "a%2Fb%3Fc"), ("..", "%2E%2E"), ("ü", "%C3%BC")]
        {
            assert_eq!(segment(text), encoded);
        }
    }

    #[tokio::test]
    async fn nobody_there_is_unavailable() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(Target::Given { url: format!("http://{free}"), token: None }).unwrap();
        let failure = client.get("/v1/catalogue", &Vec::new()).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unavailable);
        assert!(failure.message.starts_with(&format!("nobody answers at http://{free}: ")), "{}", failure.message);
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(Target::local(folder.path())).unwrap();
        assert_eq!(client.get("/", &Vec::new()).await.unwrap_err().exit, Exit::Unavailable);
        assert_eq!(client.ready().await, None);
    }
}
