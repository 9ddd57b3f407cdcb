//! `airstream login`, `logout`, `whoami`: sessions of people.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::Context;
use crate::client::{Client, Target, session_of};
use crate::contexts::{self, Saved, Session};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::field;

/// The flags of `login`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "Examples:\n  \
    airstream login ann@example.org\n  \
    airstream login ann --tenant tnt_1 --password-stdin\n  \
    airstream login --device --url https://air.example\n  \
    airstream login ann@example.org --register\n  \
    airstream login --confirm aco_4f3Hk2mQ9sT1vW7y")]
pub(crate) struct Login {
    /// E-mail address or username [default: asked for]
    #[arg(value_name = "LOGIN")]
    pub(crate) login: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// The code of an authenticator, or a recovery code
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Sign in with a browser or another device that is signed in already
    #[arg(long, conflicts_with_all = ["login", "password_stdin", "code"])]
    device: bool,
    /// Make an account first
    #[arg(long, requires = "login", conflicts_with = "device")]
    register: bool,
    /// A name to log in by, for a new account
    #[arg(long, value_name = "NAME", requires = "register")]
    username: Option<String>,
    /// Confirm an e-mail address with the code of the mail
    #[arg(long, value_name = "CODE", conflicts_with_all = ["login", "device", "register", "code"])]
    confirm: Option<String>,
    /// The tenant to work in [default: the only one, if there is one]
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

/// Asks for a line on the terminal.
pub(crate) fn ask(console: &crate::output::Console, what: &str) -> Outcome<String> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{what} is missing, and nobody can be asked: stdin is no terminal")));
    }
    console.complain(&format!("{what}:"));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| Failure::because(Exit::Failed, &error))?;
    Ok(line.trim().to_owned())
}

/// Asks for a password, unseen; or reads it from stdin.
pub(crate) fn password(from_stdin: bool, what: &str) -> Outcome<String> {
    if from_stdin {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|error| Failure::because(Exit::Failed, &error))?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("the password is missing, and nobody can be asked: stdin is no terminal")
            .hint("give it with --password-stdin"));
    }
    rpassword::prompt_password(format!("{what}: ")).map_err(|error| Failure::because(Exit::Failed, &error))
}

pub(crate) async fn run(context: &Context<'_>, login: &Login) -> Outcome {
    let (console, client) = (context.console, context.client()?);
    if let Some(code) = &login.confirm {
        client.open_post("/v1/auth/verify-email", &json!({ "code": code })).await?;
        console.say("the address is confirmed: log in");
        return Ok(());
    }
    if login.device {
        let answer = by_device(context, &client).await?;
        return signed_in(context, &client, answer, login.tenant.as_deref()).await;
    }
    let name = match &login.login {
        Some(name) => name.clone(),
        None => ask(console, "E-mail address or username")?,
    };
    let password = password(login.password_stdin, "Password")?;
    if login.register {
        let body = json!({ "email": name, "username": login.username, "password": password });
        let answer = client.open_post("/v1/auth/register", &body).await?;
        console.say(&field(&answer, "detail"));
        return Ok(());
    }
    let answer = with_password(console, &client, &name, &password, login.code.as_deref()).await?;
    signed_in(context, &client, answer, login.tenant.as_deref()).await
}

/// Signs in, and asks for the second factor when there is one.
pub(crate) async fn with_password(
    console: &crate::output::Console,
    client: &Client,
    login: &str,
    password: &str,
    code: Option<&str>,
) -> Outcome<Value> {
    let ask_with = async |code: Option<&str>| {
        let mut body = json!({ "login": login, "password": password });
        if let Some(code) = code {
            // Codes of authenticators are six digits, recovery codes are not.
            let digits = code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit());
            body[if digits { "totp" } else { "recovery_code" }] = code.into();
        }
        client.open_post("/v1/auth/login", &body).await
    };
    match ask_with(code).await {
        Err(failure) if code.is_none() && failure.code() == Some("second_factor_required") => {
            let code = ask(console, "Code of your authenticator, or a recovery code")?;
            ask_with(Some(&code)).await
        }
        answer => answer,
    }
}

/// RFC 8628: a code is shown here, and approved where somebody is signed in.
async fn by_device(context: &Context<'_>, client: &Client) -> Outcome<Value> {
    let console = context.console;
    let asked = client.open_post("/v1/auth/device", &json!({ "client_name": "airstream CLI" })).await?;
    console.complain(&format!(
        "Open {} and type the code\n\n    {}\n",
        field(&asked, "verification_uri"),
        console.bold(&field(&asked, "user_code")),
    ));
    let mut pause = Duration::from_secs(asked.get("interval").and_then(Value::as_u64).unwrap_or(5));
    let lasts = Duration::from_secs(asked.get("expires_in").and_then(Value::as_u64).unwrap_or(600));
    let until = tokio::time::Instant::now() + lasts;
    let spinner = console.spinner();
    spinner.set_message("waiting for somebody to approve it");
    let code = field(&asked, "device_code");
    let form = [("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", code.as_str())];
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(pause).await;
        match client.open_form("/v1/auth/token", &form).await {
            Ok(answer) => return Ok(answer),
            Err(failure) => match failure.code() {
                Some("authorization_pending") => {}
                Some("slow_down") => pause += Duration::from_secs(5),
                _ => return Err(failure),
            },
        }
    }
    Err(Failure::new(Exit::Timeout, "nobody approved the code in time").hint("run `airstream login --device` again"))
}

/// Keeps a session under the context that is meant, which becomes the current one.
pub(crate) async fn signed_in(context: &Context<'_>, client: &Client, answer: Value, tenant: Option<&str>) -> Outcome {
    let mut session = session_of(&answer)?;
    if let Some(tenant) = tenant {
        let chosen = choose(client, &session, Some(tenant)).await?;
        session = Session { tenant: Some(tenant.to_owned()), access_token: field(&chosen, "access_token"), ..session };
    }
    let (name, saved) = place(context, client)?;
    let user = session.user.clone();
    let works_in = session.tenant.clone();
    contexts::change(|store| {
        store.contexts.insert(name.clone(), Saved { session: Some(session), ..saved });
        store.current = Some(name.clone());
        Ok(())
    })?;
    if context.console.is_json() {
        return context.console.json(&json!({ "context": name, "user": user, "tenant": works_in }));
    }
    let tenant = match works_in {
        Some(tenant) => format!("in tenant {tenant}"),
        None => "without a tenant: `airstream tenants ls`, then `airstream tenants use`".to_owned(),
    };
    context.console.say(&format!("logged in as {user}, {tenant}"));
    Ok(())
}

/// An access token of a session for a tenant.
async fn choose(client: &Client, session: &Session, tenant: Option<&str>) -> Outcome<Value> {
    client.post_as(&session.access_token, "/v1/auth/tenant", &json!({ "tenant": tenant })).await
}

/// The name under which the server that is meant is kept.
fn place(context: &Context<'_>, client: &Client) -> Outcome<(String, Saved)> {
    let named = context.global.context.clone();
    Ok(match client.target() {
        Target::Given { url, .. } => {
            let host = url.split("://").last().unwrap_or_default().trim_end_matches('/').to_owned();
            (named.unwrap_or(host), Saved { url: Some(url.clone()), ..Saved::default() })
        }
        Target::Local { data_dir, .. } => (
            named.unwrap_or_else(|| "local".to_owned()),
            Saved { data_dir: Some(data_dir.clone()), ..Saved::default() },
        ),
        Target::Context(name) => {
            let saved = contexts::load()?.contexts.get(name).cloned().unwrap_or_default();
            (name.clone(), saved)
        }
    })
}

/// Ends the session of the current context, here and on the server.
pub(crate) async fn log_out(context: &Context<'_>) -> Outcome {
    let client = context.client()?;
    let Target::Context(name) = client.target() else {
        return Err(Failure::new(Exit::NotFound, "you are not logged in anywhere").hint("`airstream context ls`"));
    };
    let session = contexts::load()?.contexts.get(name).and_then(|saved| saved.session.clone());
    let told = match &session {
        Some(session) => {
            let body = json!({ "refresh_token": session.refresh_token });
            client.open_post("/v1/auth/logout", &body).await.map(drop)
        }
        None => Ok(()),
    };
    let name = name.clone();
    contexts::change(|store| {
        if let Some(saved) = store.contexts.get_mut(&name) {
            saved.session = None;
        }
        Ok(())
    })?;
    if let Err(failure) = told {
        context.console.say(&context.console.yellow("the tokens are forgotten here; the server could not be told"));
        return Err(failure);
    }
    context.console.say(&format!("logged out of {name}"));
    Ok(())
}

/// Who the server takes us for.
pub(crate) async fn who_am_i(context: &Context<'_>) -> Outcome {
    let (console, client) = (context.console, context.client()?);
    let found = client.get("/v1/whoami", &Vec::new()).await?;
    if console.is_json() {
        return console.json(&found);
    }
    let mut pairs = vec![("principal", field(&found, "principal")), ("kind", field(&found, "kind"))];
    for name in ["email", "username", "name", "tenant", "level", "scopes", "expires_at"] {
        let value = field(&found, name);
        if !value.is_empty() {
            pairs.push((name, value));
        }
    }
    pairs.push(("operator", field(&found, "operator")));
    pairs.push(("server", client.place()));
    console.pairs(&pairs)
}

/// Chooses the tenant to work in, for the session of the current context.
pub(crate) async fn use_tenant(context: &Context<'_>, tenant: Option<&str>) -> Outcome {
    let client = context.client()?;
    let answer = client.send(Method::POST, "/v1/auth/tenant", Some(&json!({ "tenant": tenant }))).await?;
    let Target::Context(name) = client.target() else {
        return Err(Failure::usage("this server was named with --url or --token: a token has its tenant already")
            .hint("log in first: `airstream login`"));
    };
    contexts::change(|store| {
        if let Some(session) = store.contexts.get_mut(name).and_then(|saved| saved.session.as_mut()) {
            session.tenant = tenant.map(str::to_owned);
            session.access_token = field(&answer, "access_token");
            let lasts = answer.get("expires_in").and_then(Value::as_i64).unwrap_or_default();
            session.expires_at = runtime::clock::now().timestamp() + lasts;
        }
        Ok(())
    })?;
    match tenant {
        Some(tenant) => context.console.say(&format!("working in {tenant}")),
        None => context.console.say("working in no tenant"),
    }
    Ok(())
}
