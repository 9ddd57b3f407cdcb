//! `airstream users`: the people of the tenant that one works in.

use reqwest::Method;
use serde_json::json;

use super::{Context, Page, print_page};
use crate::client::{Client, segment};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::field;

/// What a member may do.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Role {
    /// Reads
    Viewer,
    /// Works: starts, changes, cancels
    Member,
    /// Also invites, gives roles, makes keys
    Admin,
    /// Everything
    Owner,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Member => "member",
            Role::Admin => "admin",
            Role::Owner => "owner",
        }
    }
}

/// What can be done with the people of a tenant.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Verb {
    /// List the members
    #[command(after_long_help = "Example:\n  airstream users ls", alias = "list")]
    Ls(Page),
    /// Ask somebody to join
    #[command(after_long_help = "Example:\n  airstream users invite bob@example.org --role member")]
    Invite {
        /// Their e-mail address
        email: String,
        /// What they may do
        #[arg(long, value_enum, default_value = "member")]
        role: Role,
    },
    /// List the invitations that are open
    #[command(after_long_help = "Example:\n  airstream users invites")]
    Invites(Page),
    /// Take an invitation back
    #[command(after_long_help = "Example:\n  airstream users uninvite inv_1")]
    Uninvite {
        /// Its id
        invite: String,
    },
    /// Join a tenant with the code of an invitation
    #[command(after_long_help = "Example:\n  airstream users join ain_4f3Hk2mQ9sT1vW7y")]
    Join {
        /// As the mail says it
        code: String,
    },
    /// Change what a member may do
    #[command(after_long_help = "Example:\n  airstream users role usr_1 admin")]
    Role {
        /// Their id
        person: String,
        /// What they may do
        #[arg(value_enum)]
        role: Role,
    },
    /// End a membership
    #[command(after_long_help = "Example:\n  airstream users remove usr_1", alias = "rm")]
    Remove {
        /// Their id
        person: String,
    },
}

/// The tenant that is worked in.
async fn tenant(client: &Client) -> Outcome<String> {
    let found = client.get("/v1/whoami", &Vec::new()).await?;
    match field(&found, "tenant") {
        tenant if tenant.is_empty() => Err(Failure::new(Exit::Usage, "you work in no tenant")
            .hint("`airstream tenants ls` lists yours, `airstream tenants use` chooses one")),
        tenant => Ok(format!("/v1/tenants/{}", segment(&tenant))),
    }
}

pub(crate) async fn run(context: &Context<'_>, verb: &Verb) -> Outcome {
    let (console, client) = (context.console, context.client()?);
    match verb {
        Verb::Ls(page) => {
            let found = client.get(&format!("{}/members", tenant(&client).await?), &page.query()).await?;
            print_page(console, &found, &["person", "name", "email", "role", "joined_at"], "nobody")
        }
        Verb::Invite { email, role } => {
            let body = json!({ "email": email, "role": role.word() });
            let path = format!("{}/invites", tenant(&client).await?);
            let made = client.send(Method::POST, &path, Some(&body)).await?;
            match console.is_json() {
                true => console.json(&made),
                false => {
                    console.say(&format!("a mail to {email} says how to join"));
                    console.line(&field(&made, "id"))
                }
            }
        }
        Verb::Invites(page) => {
            let found = client.get(&format!("{}/invites", tenant(&client).await?), &page.query()).await?;
            print_page(console, &found, &["id", "email", "role", "created_at", "expires_at"], "no open invitation")
        }
        Verb::Uninvite { invite } => {
            let path = format!("{}/invites/{}", tenant(&client).await?, segment(invite));
            client.send(Method::DELETE, &path, None).await?;
            console.say("the invitation is worth nothing any more");
            Ok(())
        }
        Verb::Join { code } => {
            let joined = client.send(Method::POST, "/v1/invites/accept", Some(&json!({ "code": code }))).await?;
            match console.is_json() {
                true => console.json(&joined),
                false => {
                    console.say("joined; `airstream tenants use` works in it");
                    console.line(&field(&joined, "tenant"))
                }
            }
        }
        Verb::Role { person, role } => {
            let path = format!("{}/members/{}", tenant(&client).await?, segment(person));
            client.send(Method::PATCH, &path, Some(&json!({ "role": role.word() }))).await?;
            console.say(&format!("{person} is {} now", role.word()));
            Ok(())
        }
        Verb::Remove { person } => {
            let path = format!("{}/members/{}", tenant(&client).await?, segment(person));
            client.send(Method::DELETE, &path, None).await?;
            console.say(&format!("{person} is no longer a member"));
            Ok(())
        }
    }
}
