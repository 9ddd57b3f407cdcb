//! A mail server, spoken to by SMTP (RFC 5321, 6409).

use std::time::Duration;

use async_trait::async_trait;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use percent_encoding::percent_decode_str;
use projections::mail::Claimed;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::message::{Form, compose};
use crate::{Carrier, Sender, Unsent};

/// How long a server may take for one of its answers.
const ANSWER: Duration = Duration::from_secs(20);
/// How long one mail may take, with connecting.
pub(crate) const ONE_MAIL: Duration = Duration::from_secs(60);
/// How long a connection is used again without asking whether it still is one.
const FRESH: Duration = Duration::from_secs(5);

/// How a connection is kept from being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    /// From the first byte.
    Tls,
    /// From STARTTLS on, without which nothing is said.
    StartTls,
    /// Not at all.
    Plain,
}

/// Where a mail server is and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
    security: Security,
    credentials: Option<(String, String)>,
}

// A password must not reach a log because somebody printed its server.
impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({}:{}, {:?})", self.host, self.port, self.security)
    }
}

impl Server {
    /// Reads `smtp://user:password@host:587` (STARTTLS, and nothing without it), `smtps://…` (TLS from the beginning) or
    /// `smtp://…?tls=none`.
    ///
    /// # Errors
    /// A sentence that says what it should look like; it does not repeat the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        const SHAPE: &str = "is smtp://user:password@host:587 (STARTTLS), smtps://user:password@host:465 (TLS) or \
                             smtp://host:25?tls=none";
        let url = Url::parse(text).map_err(|error| format!("{SHAPE}; this is no URL: {error}"))?;
        let query = url.query().unwrap_or_default();
        let (security, usual) = match (url.scheme(), query) {
            ("smtps", "") => (Security::Tls, 465),
            ("smtp", "" | "tls=required") => (Security::StartTls, 587),
            ("smtp", "tls=none") => (Security::Plain, 25),
            _ => return Err(SHAPE.to_owned()),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(SHAPE)?;
        if !["", "/"].contains(&url.path()) || url.fragment().is_some() {
            return Err(SHAPE.to_owned());
        }
        let read = |text: &str| {
            let read = percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
            read.map_err(|_| "has a user or password that is not UTF-8".to_owned())
        };
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, Some(password)) => Some((read(user)?, read(password)?)),
            (_, None) => return Err("has a user without a password".to_owned()),
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port: url.port().unwrap_or(usual), security, credentials })
    }
}

/// Hands mails to a server. Connections are used again while there is something to send.
pub struct Smtp {
    server: Server,
    tls: Option<TlsParameters>,
    sender: Sender,
    hello: ClientId,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

impl Smtp {
    /// Speaks to nobody yet. `authority`, in PEM, is believed besides those that the machine believes.
    ///
    /// # Errors
    /// When TLS cannot be prepared.
    pub fn new(server: Server, sender: Sender, authority: Option<&[u8]>) -> Result<Self, String> {
        let failed = |error: Error| format!("TLS cannot be prepared for the mail server: {error}");
        let tls = match server.security {
            Security::Plain => None,
            Security::Tls | Security::StartTls => {
                let mut tls = TlsParameters::builder(server.host.clone());
                if let Some(pem) = authority {
                    tls = tls.add_root_certificate(Certificate::from_pem(pem).map_err(failed)?);
                }
                Some(tls.build().map_err(failed)?)
            }
        };
        let hello = ClientId::Domain(sender.domain().to_owned());
        Ok(Self { server, tls, sender, hello, idle: Mutex::default() })
    }

    /// A connection that we are let in by.
    async fn connection(&self) -> Result<AsyncSmtpConnection, Error> {
        while let Some((mut idle, since)) = self.idle_one().await {
            if since.elapsed() < FRESH || idle.test_connected().await {
                return Ok(idle);
            }
        }
        let Server { host, port, security, credentials } = &self.server;
        let at_once = self.tls.clone().filter(|_| *security == Security::Tls);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1((host.as_str(), *port), Some(ANSWER), &self.hello, at_once, None)
                .await?;
        if let (Security::StartTls, Some(tls)) = (security, &self.tls) {
            connection.starttls(tls.clone(), &self.hello).await?;
        }
        if let Some((user, password)) = credentials {
            let credentials = Credentials::new(user.clone(), password.clone());
            connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await?;
        }
        Ok(connection)
    }

    async fn idle_one(&self) -> Option<(AsyncSmtpConnection, Instant)> {
        self.idle.lock().await.pop()
    }

    async fn hand_over(&self, mail: &Claimed) -> Result<(), Unsent> {
        let message = compose(&self.sender, mail, Form::ForServers).map_err(Unsent::Never)?;
        let mut connection = self.connection().await.map_err(|error| Unsent::Away(error.to_string()))?;
        // After an error it is closed, whatever it was.
        connection.send(message.envelope(), &message.formatted()).await.map_err(|error| judge(&error))?;
        self.idle.lock().await.push((connection, Instant::now()));
        Ok(())
    }
}

/// What an answer to a mail means for it.
fn judge(error: &Error) -> Unsent {
    let said = error.to_string();
    let code = error.status().map(u16::from);
    match code {
        // It is about us, not about the mail: 530, 534, 535, 538 ask us to say who we are; 421 closes the door.
        Some(421 | 530..=538) => Unsent::Away(said),
        Some(500..) => Unsent::Never(said),
        Some(_) => Unsent::Later(said),
        // Our own side cannot say it: an address that this server's dialect has no letters for.
        None if error.is_client() => Unsent::Never(said),
        None => Unsent::Away(said),
    }
}

#[async_trait]
impl Carrier for Smtp {
    async fn carry(&self, mail: &Claimed) -> Result<(), Unsent> {
        let late = |_| Unsent::Away(format!("the mail server took longer than {} s", ONE_MAIL.as_secs()));
        timeout(ONE_MAIL, self.hand_over(mail)).await.map_err(late)?
    }

    async fn rest(&self) {
        while let Some((mut idle, _)) = self.idle_one().await {
            let _ = timeout(ANSWER, idle.quit()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_spoken_to_in_secret_unless_its_url_says_otherwise() {
        let read = |text: &str| Server::parse(text).expect("a server");
        let server = read("smtp://ann%40example.org:p%2Bw+x@mail.example.org");
        assert_eq!((server.host.as_str(), server.port), ("mail.example.org", 587));
        assert_eq!(server.security, Security::StartTls);
        assert_eq!(server.credentials, Some(("ann@example.org".to_owned(), "p+w+x".to_owned())));
        assert!(!format!("{server:?}").contains("p+w"));
        assert_eq!((read("smtps://host").port, read("smtps://host").security), (465, Security::Tls));
        let local = read("smtp://[::1]:1025?tls=none");
        assert_eq!((local.host.as_str(), local.port, local.security), ("::1", 1025, Security::Plain));
    }

    #[test]
    fn what_is_no_server_is_refused_without_its_password() {
        for bad in [
            "",
            "mail.example.org:587",
            "https://u:secret@host",
            "smtp://",
            "smtp://u:secret@host?tls=opportunistic",
            "smtps://u:secret@host?tls=none",
            "smtp://u:secret@host/path",
            "smtp://user@host",
            "smtp://u:secret%ff@host",
        ] {
            let said = Server::parse(bad).expect_err(bad);
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
