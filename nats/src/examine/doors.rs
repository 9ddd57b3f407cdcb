//! Looks at the account for tenants on a NATS that is somebody else's, and at whether it asks us who may come in.

use std::time::Duration;

use async_nats::ConnectOptions;
use futures::StreamExt;
use runtime::finding::Finding;

use crate::callout::SUBJECT;
use crate::jwt::Question;
use crate::{Connection, Credentials, Signer};

const TENANTS: &str = "nats.tenants";
const CALLOUT: &str = "nats.callout";
/// Where it is written how such a server is configured.
const ADVICE: &str = "see nats/cluster/README.md: an account without streams, `auth_callout`, and nats.tenants_user, \
                      nats.callout_user and nats.callout_seed";

/// Looks at the doors' account, as its user, and at the callout: its user, and the key that vouches.
pub async fn examine_doors(
    url: &str,
    door: Option<&Credentials>,
    callout: Option<(&Credentials, &Signer)>,
) -> Vec<Finding> {
    let Some(door) = door else {
        let detail = "the doors stand in the platform's own account: only users of the server's configuration can come \
                      in, none with an API key, and only their permissions keep them from the log";
        return vec![Finding::warn(TENANTS, detail, ADVICE)];
    };
    let tenants = match Connection::open(url, door, "airstream doctor").await {
        Ok(_) => Finding::ok(TENANTS, "the doors have an account of their own"),
        Err(error) => {
            let detail = format!("nats.tenants_user is not let in: {error}");
            Finding::fail(TENANTS, detail, "mend nats.tenants_user and nats.tenants_password")
        }
    };
    let callout = match callout {
        None => {
            let detail = "the server does not ask us who may come in: nobody does with an API key";
            Finding::warn(CALLOUT, detail, ADVICE)
        }
        Some((login, signer)) => asked(url, login, signer).await,
    };
    vec![tenants, callout]
}

/// Knocks, and listens whether we are asked. Whoever runs there answers as always.
async fn asked(url: &str, login: &Credentials, signer: &Signer) -> Finding {
    let connection = match Connection::open(url, login, "airstream doctor").await {
        Ok(connection) => connection,
        Err(error) => {
            let detail = format!("nats.callout_user is not let in: {error}");
            return Finding::fail(CALLOUT, detail, "mend nats.callout_user and nats.callout_password");
        }
    };
    let client = connection.client();
    let heard = async {
        let mut questions = client.subscribe(SUBJECT).await.ok()?;
        client.flush().await.ok()?;
        let first = url.split(',').next().unwrap_or(url).to_owned();
        // What comes of it does not matter, and is not waited for.
        let knock = ConnectOptions::with_token("airstream-doctor".to_owned()).name("airstream doctor");
        let knocking = tokio::spawn(async move { drop(knock.connect(first).await) });
        let question = tokio::time::timeout(Duration::from_secs(3), questions.next()).await.ok().flatten();
        knocking.abort();
        question
    };
    let Some(question) = heard.await else {
        let detail = "the server did not ask us about somebody whom it does not know";
        return Finding::fail(CALLOUT, detail, ADVICE);
    };
    match Question::read(&question.payload) {
        Ok(question) if question.issuer() == signer.issuer() => {
            Finding::ok(CALLOUT, "the server asks us who may come in")
        }
        Ok(question) => {
            let detail = format!(
                "the server believes what {} has signed, and nats.callout_seed is the seed of {}",
                question.issuer(),
                signer.issuer()
            );
            Finding::fail(
                CALLOUT,
                detail,
                "set `issuer` in the server's `auth_callout` to the key of nats.callout_seed",
            )
        }
        Err(reason) => {
            let detail = format!("the server's question cannot be read: {reason}");
            Finding::fail(CALLOUT, detail, "leave `xkey` out of the server's `auth_callout`")
        }
    }
}
