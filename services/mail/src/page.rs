//! `/mailbox`: what a development stack would have sent, for whoever develops on it.
//!
//! It shows what lets its reader into accounts. So it exists only where the mailbox does, and is shown only to this machine: to
//! a connection from here, that was not passed on by a proxy, and that asked for this machine by name, so that no page of
//! somebody else's can read it through a name of theirs that leads here.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use kernel::Problem;
use rest::Fault;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Mailbox;
use crate::mailbox::Letter;

/// The page.
pub fn router(mailbox: Mailbox) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list_letters)).routes(routes!(show_letter)).with_state(mailbox)
}

/// The mails that a development stack would have sent
///
/// A page for people. It exists only on a development stack without a mail server, and only for this machine.
#[utoipa::path(
    get, path = "/mailbox", tag = "development", security(()),
    responses(
        (status = 200, description = "The newest mails", content_type = "text/html", body = String),
        (status = 403, description = "Not asked from this machine", body = rest::documents::Problem,
         content_type = "application/problem+json"),
    )
)]
async fn list_letters(
    State(mailbox): State<Mailbox>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    from_here(peer, &headers)?;
    let letters = mailbox.letters().await.map_err(|error| unreadable(&error))?;
    let rows: String = letters.iter().map(row).collect();
    let body = match letters.is_empty() {
        true => "<p>No mail has been sent yet.</p>".to_owned(),
        false => format!(
            "<table><thead><tr><th scope=\"col\">Subject</th><th scope=\"col\">To</th><th scope=\"col\">Sent</th></tr>\
             </thead><tbody>{rows}</tbody></table>"
        ),
    };
    let folder = escaped(&mailbox.folder().display().to_string());
    Ok(page("Mailbox", &format!("<h1>Mailbox</h1>{body}<p>The same mails lie in <code>{folder}</code>.</p>")))
}

/// One mail that a development stack would have sent
#[utoipa::path(
    get, path = "/mailbox/{name}", tag = "development", security(()),
    params(("name" = String, Path, description = "The name of its file")),
    responses(
        (status = 200, description = "The mail", content_type = "text/html", body = String),
        (status = 403, description = "Not asked from this machine", body = rest::documents::Problem,
         content_type = "application/problem+json"),
        (status = 404, description = "There is no such mail", body = rest::documents::Problem,
         content_type = "application/problem+json"),
    )
)]
async fn show_letter(
    State(mailbox): State<Mailbox>,
    Path(name): Path<String>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    from_here(peer, &headers)?;
    let letter = mailbox.letter(&name).await.map_err(|error| unreadable(&error))?;
    let letter = letter.ok_or_else(|| Problem::not_found("There is no such mail; /mailbox lists them."))?;
    let (subject, to, date) = (escaped(&letter.subject), escaped(&letter.to), escaped(&letter.date));
    Ok(page(
        &letter.subject,
        &format!(
            "<p><a href=\"/mailbox\">All mails</a></p><h1>{subject}</h1>\
             <dl><dt>To</dt><dd>{to}</dd><dt>Sent</dt><dd>{date}</dd></dl><pre>{}</pre>",
            linked(&letter.text)
        ),
    ))
}

fn row(letter: &Letter) -> String {
    // A name has no character that means anything in a path or in HTML.
    let (name, subject) = (&letter.name, escaped(&letter.subject));
    let (to, date) = (escaped(&letter.to), escaped(&letter.date));
    format!("<tr><td><a href=\"/mailbox/{name}\">{subject}</a></td><td>{to}</td><td>{date}</td></tr>")
}

fn page(title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{} – Airstream</title><style>{STYLE}</style></head>\
         <body><main>{body}</main><footer><p>This page exists in development only: with a mail server configured \
         (<code>mail.url</code>), mails are sent and not shown.</p></footer></body></html>",
        escaped(title)
    );
    let headers = [
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (StatusCode::OK, headers, Html(html)).into_response()
}

const STYLE: &str = ":root{color-scheme:light dark;font:1rem/1.5 system-ui,sans-serif}\
    body{max-width:60rem;margin:0 auto;padding:1rem}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .8rem .4rem 0;border-bottom:1px solid #8886}\
    pre{white-space:pre-wrap;overflow-wrap:anywhere;font:inherit;border:1px solid #8886;padding:1rem}\
    dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem}dd{margin:0}\
    footer{border-top:1px solid #8886;margin-top:2rem}";

/// Lets pass who asks from this machine, for this machine.
fn from_here(peer: SocketAddr, headers: &HeaderMap) -> Result<(), Problem> {
    let passed_on = ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if peer.ip().to_canonical().is_loopback() && !passed_on && is_here(host) {
        return Ok(());
    }
    let detail = "The mailbox is shown to this machine only: open it at 127.0.0.1 there.";
    Err(Problem::new(403, "loopback_only", detail))
}

/// Whether a `Host` names this machine, with or without a port.
fn is_here(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn unreadable(error: &std::io::Error) -> Problem {
    tracing::error!(%error, "the mailbox cannot be read");
    Problem::new(500, "defect", "The mailbox cannot be read; it has been logged.")
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Escaped, and addresses of the web can be clicked.
fn linked(text: &str) -> String {
    let mut safe = String::new();
    for piece in text.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        let blank = &piece[word.len()..];
        let word = escaped(word);
        if ["http://", "https://"].iter().any(|scheme| word.starts_with(scheme)) {
            safe.push_str(&format!("<a href=\"{word}\" rel=\"noreferrer\">{word}</a>{blank}"));
        } else {
            safe.push_str(&word);
            safe.push_str(blank);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(peer: &str, headers: &[(&'static str, &str)]) -> bool {
        let peer = SocketAddr::new(peer.parse().expect("an address"), 4_711);
        let headers = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().expect("a value")));
        from_here(peer, &headers.collect()).is_ok()
    }

    #[test]
    fn the_page_is_for_this_machine_only() {
        for host in ["127.0.0.1:8787", "localhost:8787", "LOCALHOST", "[::1]:8787", "127.0.0.1"] {
            assert!(asked("127.0.0.1", &[("host", host)]), "{host}");
        }
        assert!(asked("::1", &[("host", "[::1]:1")]) && asked("::ffff:127.0.0.1", &[("host", "localhost")]));
        assert!(!asked("192.168.0.7", &[("host", "localhost")]), "from elsewhere");
        assert!(!asked("127.0.0.1", &[]), "for nobody knows whom");
        for host in ["evil.example.org", "127.0.0.1.evil.example.org", "localhost.evil.org:8787", "192.168.0.7", ""] {
            assert!(!asked("127.0.0.1", &[("host", host)]), "{host}");
        }
        assert!(!asked("127.0.0.1", &[("host", "localhost"), ("x-forwarded-for", "1.2.3.4")]), "by a proxy");
    }

    #[test]
    fn what_a_mail_says_stays_text() {
        assert_eq!(escaped("<a href='\"'>&"), "&lt;a href=&#39;&quot;&#39;&gt;&amp;");
        assert_eq!(
            linked("open\n https://a.org/?x=1&y=\"><script> now"),
            "open\n <a href=\"https://a.org/?x=1&amp;y=&quot;&gt;&lt;script&gt;\" rel=\"noreferrer\">\
             https://a.org/?x=1&amp;y=&quot;&gt;&lt;script&gt;</a> now"
        );
        assert_eq!(linked("javascript:alert(1) <b>"), "javascript:alert(1) &lt;b&gt;");
    }
}
