//! `airstream init`: from nothing to somebody who works in a tenant of their own.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::command::command_id;
use super::login::{ask, password, signed_in, use_tenant, with_password};
use super::{Context, items};
use crate::client::{Client, Target};
use crate::config::FILE;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::field;

/// How long a mail may take into the mailbox of a local stack.
const MAIL_PATIENCE: Duration = Duration::from_secs(10);
/// How codes begin that confirm an address.
const CONFIRM: &str = "aco_";
/// How codes begin by which a password is chosen anew.
const RESET: &str = "apw_";

/// The flags of `init`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_long_help = "On a local stack the mail with the code is read for you; elsewhere it is asked for.\n\nExamples:\n  \
    airstream init\n  \
    airstream init --email ann@example.org --tenant Acme --password-stdin\n  \
    airstream init --url https://air.example"
)]
pub(crate) struct Arguments {
    /// Your e-mail address [default: asked for]
    #[arg(long)]
    email: Option<String>,
    /// What your first tenant is called [default: asked for]
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Read the password from stdin
    #[arg(long)]
    password_stdin: bool,
    /// Write no airstream.toml
    #[arg(long)]
    no_config: bool,
}

pub(crate) async fn run(context: &Context<'_>, arguments: &Arguments) -> Outcome {
    let (console, client) = (context.console, context.client()?);
    if !arguments.no_config {
        write_config(context, Path::new(FILE))?;
    }
    if matches!(client.target(), Target::Context(_)) && client.get("/v1/me", &Vec::new()).await.is_ok() {
        console.say("you are logged in already");
    } else {
        enter(context, &client, arguments).await?;
    }
    // Whoever has just signed in is somebody else than before.
    let client = context.client()?;
    let mine = client.get("/v1/tenants", &Vec::new()).await?;
    match items(&mine) {
        [] => {
            let name = match &arguments.tenant {
                Some(name) => name.clone(),
                None => ask(console, "What is your first tenant called, such as the name of your team")?,
            };
            let made =
                client.command(Method::POST, "/v1/tenants", &json!({ "name": name }), &command_id(None)?).await?;
            use_tenant(context, Some(&field(&made, "id"))).await?;
        }
        [only] => use_tenant(context, Some(&field(only, "id"))).await?,
        several => {
            console.say(&format!("you belong to {} tenants: choose with `airstream tenants use`", several.len()))
        }
    }
    console.say("\nNext:\n  airstream whoami\n  airstream keys create my-program --scope commands:write --scope events:read\n  airstream users invite somebody@example.org");
    Ok(())
}

/// Signs in; makes the account first if that is needed.
async fn enter(context: &Context<'_>, client: &Client, arguments: &Arguments) -> Outcome {
    let console = context.console;
    let email = match &arguments.email {
        Some(email) => email.clone(),
        None => ask(console, "E-mail address")?,
    };
    let password = password(arguments.password_stdin, "Password (a new one for a new account)")?;
    match with_password(console, client, &email, &password, None).await {
        Ok(answer) => return signed_in(context, client, answer, None).await,
        // The server does not tell whether there is an account; a registration with a known address changes nothing.
        Err(failure) if failure.code() == Some("invalid_credentials") => {
            client.open_post("/v1/auth/register", &json!({ "email": email, "password": password })).await?;
        }
        // This is who registered. To do so once more would make the code of their mail worthless.
        Err(failure) if failure.code() == Some("email_not_confirmed") => {}
        Err(failure) => return Err(failure),
    }
    console.say(&format!("a mail to {email} has a code that confirms the address"));
    let code = match client.target() {
        Target::Local { data_dir, .. } => code_in(&data_dir.join("mailbox"), &email).await,
        _ => None,
    };
    let code = match code {
        Some(code) => {
            console.say("this is a local stack: the code was read from its mailbox");
            code
        }
        None if std::io::stdin().is_terminal() => ask(console, "Code")?,
        None => {
            return Err(Failure::new(Exit::Failed, "the code of the mail is needed to go on")
                .hint("confirm with `airstream login --confirm CODE`, and run `airstream init` again"));
        }
    };
    // Somebody has registered with this address before and not confirmed it: the password is set anew, and confirms it.
    if code.trim().starts_with(RESET) {
        client.open_post("/v1/auth/password/reset", &json!({ "code": code, "password": password })).await?;
    } else {
        client.open_post("/v1/auth/verify-email", &json!({ "code": code })).await?;
    }
    let answer =
        with_password(console, client, &email, &password, None).await.map_err(|failure| match failure.code() {
            Some("invalid_credentials") => {
                failure.hint("this address had an account already: log in with its password")
            }
            _ => failure,
        })?;
    signed_in(context, client, answer, None).await
}

/// The code of the newest mail to an address, in the mailbox of a local stack.
async fn code_in(mailbox: &Path, email: &str) -> Option<String> {
    let until = tokio::time::Instant::now() + MAIL_PATIENCE;
    while mailbox.is_dir() && tokio::time::Instant::now() < until {
        let mut names: Vec<_> = std::fs::read_dir(mailbox).ok()?.flatten().map(|entry| entry.path()).collect();
        names.sort();
        for path in names.iter().rev() {
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            let to = text.lines().find_map(|line| line.strip_prefix("To:")).unwrap_or_default();
            if to.trim().eq_ignore_ascii_case(email)
                && let Some(code) =
                    text.split_whitespace().find(|word| word.starts_with(CONFIRM) || word.starts_with(RESET))
            {
                return Some(code.to_owned());
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

/// A file to begin with, if there is none.
fn write_config(context: &Context<'_>, path: &Path) -> Outcome {
    const BEGINNING: &str = "\
# What differs from the defaults. `airstream config show --origin` prints every key, what is in force, and why.
#
# [http]
# bind = \"127.0.0.1:8787\"
#
# [identity]
# operators = [\"you@example.org\"]
";
    if context.global.config.is_some() || path.exists() {
        return Ok(());
    }
    std::fs::write(path, BEGINNING)
        .map_err(|error| Failure::new(Exit::Failed, format!("could not write {}: {error}", path.display())))?;
    context.console.say(&format!("wrote {}", path.display()));
    Ok(())
}
