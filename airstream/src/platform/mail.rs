//! Mails on their way out: to a mail server, or into the mailbox of a development stack.

use std::sync::Arc;

use ::mail::{Carrier, LEASE, Mailbox, Sender, Server, Smtp};
use anyhow::Context;
use projections::mail::Outbox;
use runtime::lease::Leases;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;

use crate::config::{self, Config};

/// Whom a development stack's mails are from.
const NOBODY: &str = "Airstream <airstream@localhost>";

/// The lease under which mails are sent, if they are sent at all.
pub(super) fn wants(config: &Config) -> Option<String> {
    let goes = !config.mail.url.is_empty() || config.mail.mailbox_dir.is_some();
    goes.then(|| LEASE.to_owned())
}

/// Begins to empty the outbox. Where mails go into a mailbox, returns the page that shows it.
pub(super) fn start(
    config: &Config,
    outbox: &Outbox,
    leases: &Leases,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> anyhow::Result<Option<OpenApiRouter>> {
    let mut page = None;
    let settings = &config.mail;
    let carrier: Arc<dyn Carrier> = match (settings.url.as_str(), &settings.mailbox_dir) {
        ("", Some(folder)) => {
            let from = if settings.from.is_empty() { NOBODY } else { &settings.from };
            let mailbox = Mailbox::new(folder.clone(), Sender::parse(from).map_err(anyhow::Error::msg)?);
            page = Some(::mail::router(mailbox.clone()));
            Arc::new(mailbox)
        }
        ("", None) => {
            tracing::warn!("mail.url is empty: what people are to be told by mail waits, and is given up after a day");
            return Ok(None);
        }
        (url, _) => Arc::new(smtp(url, settings)?),
    };
    tasks.spawn(::mail::run(outbox.clone(), carrier, leases.lease(LEASE), stop.clone()));
    Ok(page)
}

fn smtp(url: &str, settings: &config::Mail) -> anyhow::Result<Smtp> {
    let server = Server::parse(url).map_err(|said| anyhow::anyhow!("mail.url {said}"))?;
    let sender = Sender::parse(&settings.from).map_err(|said| anyhow::anyhow!("mail.from: {said}"))?;
    let authority = settings.authority_file.as_ref().map(|path| {
        std::fs::read(path).with_context(|| format!("mail.authority_file: could not read {}", path.display()))
    });
    Smtp::new(server, sender, authority.transpose()?.as_deref()).map_err(anyhow::Error::msg)
}
