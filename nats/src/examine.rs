//! Looks at a NATS that is somebody else's, before anything depends on it. Changes nothing.

mod doors;

use async_nats::jetstream::account::Account;
use kernel::Timestamp;
use runtime::clock;
use runtime::finding::Finding;
use serde_json::Value;

use crate::durability::{ADVICE, Report, reports, weakest};
use crate::topology::{self, EVENTS, Severity};
use crate::{Connection, Credentials, Durability};

pub use doors::examine_doors;

/// The oldest server that can do what we need: atomic batches with guards, and consumers that can be reset.
const OLDEST: (u32, u32) = (2, 14);
/// A commit is one message of up to 1 MiB.
const MAX_PAYLOAD: usize = 1024 * 1024;
/// One per reader of the log or of a queue, with room for readers that come and go.
const CONSUMERS: i64 = 32;
/// Times of events are ours, times in the log are the server's; people compare both.
const CLOCK_SECONDS: f64 = 1.0;

/// What we expect of it.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Copies of each stream.
    pub replicas: usize,
    /// Whether a start would insist on syncing before acknowledging.
    pub durable: bool,
}

/// Looks at everything that a start depends on, or that would make a promise of ours untrue.
pub async fn examine(url: &str, user: &Credentials, system: &Credentials, expected: Expected) -> Vec<Finding> {
    let connection = match Connection::open(url, user, "airstream doctor").await {
        Ok(connection) => connection,
        Err(error) => {
            let advice = "start it, or mend nats.url, nats.user and nats.password";
            return vec![Finding::fail("nats.reachable", format!("nobody lets us in: {error}"), advice)];
        }
    };
    let mut findings =
        vec![Finding::ok("nats.reachable", format!("{} answers", connection.client.server_info().server_name))];
    findings.push(version(&connection.server_version()));
    findings.push(payload(connection.client.max_payload()));
    let reports = reports(url, system).await;
    findings.push(durability(&reports, expected));
    match connection.context.query_account().await {
        Ok(account) => {
            findings.push(Finding::ok("nats.jetstream", "JetStream is enabled for this account"));
            findings.extend(limits(&account));
            findings.extend(streams(&connection, expected.replicas).await);
        }
        Err(error) => {
            let advice = "enable `jetstream` in the server's configuration and for the account of nats.user";
            findings.push(Finding::fail("nats.jetstream", format!("JetStream does not answer: {error}"), advice));
        }
    }
    if let Ok(reports) = &reports {
        findings.push(replicas(reports, expected.replicas));
    }
    findings.extend(clocks(&connection, &reports).await);
    findings
}

fn version(found: &str) -> Finding {
    let mut numbers = found.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let known = numbers.next().zip(numbers.next());
    match known {
        Some(version) if version >= OLDEST => Finding::ok("nats.version", found),
        _ => {
            let (major, minor) = OLDEST;
            let detail = format!("the server has version {found}; before {major}.{minor} it lacks what the log needs");
            Finding::fail("nats.version", detail, format!("upgrade nats-server to {major}.{minor} or newer"))
        }
    }
}

fn payload(found: usize) -> Finding {
    if found >= MAX_PAYLOAD {
        return Finding::ok("nats.max_payload", format!("{found} bytes"));
    }
    let detail = format!("a message may have {found} bytes; commits up to {MAX_PAYLOAD} would be refused as too large");
    Finding::warn("nats.max_payload", detail, "set `max_payload: 1MB` or more, or lower executor.max_body_bytes to fit")
}

fn durability(reports: &Result<Vec<Report>, String>, expected: Expected) -> Finding {
    const CODE: &str = "nats.durability";
    let found = match reports {
        Ok(reports) => weakest(reports),
        Err(reason) => Durability::Unknown(reason.clone()),
    };
    let Some(loss) = found.loss(expected.replicas) else {
        return Finding::ok(CODE, "every server syncs to disk before it acknowledges");
    };
    let advice = match found {
        Durability::Unknown(_) => {
            format!("set nats.system_user and nats.system_password so that it can be asked, and {ADVICE}")
        }
        _ => ADVICE.to_owned(),
    };
    if expected.durable { Finding::fail(CODE, loss, advice) } else { Finding::warn(CODE, loss, advice) }
}

fn replicas(reports: &[Report], wanted: usize) -> Finding {
    const CODE: &str = "nats.replicas";
    let servers = reports.iter().filter(|report| report.durability.is_some()).count();
    if wanted > servers {
        let detail = format!("nats.replicas is {wanted}, and {servers} servers answer that have JetStream");
        return Finding::fail(CODE, detail, "start the other servers, or lower nats.replicas");
    }
    if servers >= 3 && wanted == 1 {
        let detail =
            format!("{servers} servers, and one of them alone holds each stream: without it the log stands still");
        return Finding::warn(
            CODE,
            detail,
            "set nats.replicas = 3; existing streams with `nats stream edit --replicas 3`",
        );
    }
    Finding::ok(CODE, format!("{wanted} of {servers} servers hold each stream"))
}

fn limits(account: &Account) -> Vec<Finding> {
    let (limits, mut findings) = (&account.limits, Vec::new());
    let streams = topology::streams(1).len() as i64;
    let mut room = |what: &str, limit: Option<i64>, used: usize, needed: i64| {
        if let Some(limit) = limit.filter(|limit| *limit < needed.max(used as i64)) {
            let detail = format!("the account may have {limit} {what}; we need up to {needed}");
            findings.push(Finding::fail("nats.limits", detail, format!("raise the account's limit of {what}")));
        }
    };
    room("streams", limits.max_streams.filter(|limit| *limit > 0), account.streams, streams);
    room("consumers", limits.max_consumers.filter(|limit| *limit > 0), account.consumers, CONSUMERS);
    if limits.max_bytes_required {
        let detail = "the account demands `max_bytes` of every stream; a log with such a limit ends when it is reached";
        findings.push(Finding::fail("nats.limits", detail, "lift `max_bytes_required` for this account"));
    }
    if let Some(limit) = limits.max_storage.filter(|limit| *limit > 0) {
        let used = account.storage;
        let detail = format!("{used} of {limit} bytes of file storage are used; a full log refuses commands");
        match u128::from(used) * 10 > limit as u128 * 8 {
            true => {
                findings.push(Finding::warn("nats.storage", detail, "raise the account's `max_file` before it is full"))
            }
            false => findings.push(Finding::ok("nats.storage", detail)),
        }
    }
    if !findings.iter().any(|finding| finding.code == "nats.limits") {
        findings.push(Finding::ok("nats.limits", "the account has room for our streams and consumers"));
    }
    findings
}

async fn streams(connection: &Connection, replicas: usize) -> Vec<Finding> {
    const CODE: &str = "nats.streams";
    let advice = "change it back with `nats stream edit`, or point us at another account";
    match topology::inspect(connection, replicas).await {
        Err(error) => vec![Finding::fail(CODE, error.to_string(), "see that nats.user may use the JetStream API")],
        Ok(drift) if drift.is_empty() => vec![Finding::ok(CODE, "as they should be, or not made yet")],
        Ok(drift) => drift
            .iter()
            .map(|drift| match drift.severity {
                Severity::Unsafe => Finding::fail(CODE, drift.to_string(), advice),
                Severity::Notable => Finding::warn(CODE, drift.to_string(), "change it if it was not meant"),
            })
            .collect(),
    }
}

/// How far the servers' clocks are from ours. Without the system account only a stream that exists tells the time.
async fn clocks(connection: &Connection, reports: &Result<Vec<Report>, String>) -> Option<Finding> {
    const CODE: &str = "nats.clock";
    let mut times: Vec<(String, String)> = match reports {
        Ok(reports) => {
            reports.iter().filter_map(|report| Some((report.server.clone(), report.time.clone()?))).collect()
        }
        Err(_) => Vec::new(),
    };
    if times.is_empty() {
        let answer = connection.client.request(format!("$JS.API.STREAM.INFO.{EVENTS}"), "".into()).await.ok()?;
        let answer: Value = serde_json::from_slice(&answer.payload).ok()?;
        times.push(("the server".to_owned(), answer.get("ts")?.as_str()?.to_owned()));
    }
    let now = clock::now();
    let apart = |time: &str| {
        let time: Timestamp = time.parse().ok()?;
        Some((time - now).num_microseconds()? as f64 / 1e6)
    };
    let differences = times.iter().filter_map(|(server, time)| Some((server, apart(time)?)));
    let (server, seconds) = differences.max_by(|one, other| one.1.abs().total_cmp(&other.1.abs()))?;
    // Gathering the answers took part of that.
    if seconds.abs() <= CLOCK_SECONDS {
        return Some(Finding::ok(CODE, format!("within {CLOCK_SECONDS} s of ours")));
    }
    let detail =
        format!("the clock of {server} is {seconds:+.1} s from ours: ages and lags will be told wrong by that much");
    Some(Finding::warn(CODE, detail, "let all machines follow the same time (NTP)"))
}

#[cfg(test)]
mod tests {
    use runtime::finding::Severity;

    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (found, severity) in [
            ("2.15.1", Severity::Ok),
            ("2.14.0", Severity::Ok),
            ("3.0.0-beta.1", Severity::Ok),
            ("2.9.25", Severity::Fail),
            ("2.12.3", Severity::Fail),
            ("", Severity::Fail),
        ] {
            assert_eq!(version(found).severity, severity, "{found}");
        }
    }

    #[test]
    fn a_cluster_has_to_have_as_many_servers_as_copies() {
        let server = || Report { server: "n".into(), durability: Some(Durability::Always), time: None };
        let of = |servers: usize, wanted| replicas(&vec![server(); servers], wanted).severity;
        assert_eq!(
            (of(1, 1), of(3, 3), of(1, 3), of(3, 1)),
            (Severity::Ok, Severity::Ok, Severity::Fail, Severity::Warn)
        );
    }
}
