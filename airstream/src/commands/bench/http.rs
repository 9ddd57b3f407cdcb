//! The front door: an authenticated read of one row against the same server answering a constant; how long it takes under a
//! steady load; what tokens, logins and rate limits cost.

mod logins;
mod people;
mod rate;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Common;
use super::latency::milliseconds;
use super::place::{self, Place};
use super::report::{Measured, Reach};
use super::rounds::{self, Samples};
use crate::output::Console;
use crate::platform::{Platform, Secrets};
use crate::roles::Roles;
use people::People;

/// Callers at once: enough to keep two cores busy, few enough that nobody queues for long.
const CALLERS: usize = 32;
/// Requests per second where the time is what counts.
const RATE: f64 = 1_000.0;
/// The share of the time at the beginning that is not counted.
const WARM_UP: f64 = 0.1;

pub(super) async fn measure(console: &Console, place: &Place, common: &Common) -> anyhow::Result<Vec<Measured>> {
    let mailbox = tempfile::tempdir()?;
    let mut config = place.config.clone();
    config.http.bind = "127.0.0.1:0".to_owned();
    config.mail.url = String::new();
    config.mail.mailbox_dir = Some(mailbox.path().to_owned());
    // Whoever measures logins comes from many places, and says so as a proxy would.
    config.http.trusted_proxies = vec!["127.0.0.0/8".to_owned()];
    place::widen(&mut config.limits);
    let master = vault::MasterKey::parse(&vault::MasterKey::generate())?;
    let secrets = Secrets { token: String::new(), master: Some(master) };
    let platform = Platform::start(&config, &place.addresses, Roles::all(), false, &secrets, &|_| {}).await?;
    let http = platform.http().context("the HTTP door is not open")?;
    let found = at_the_door(console, http, mailbox.path(), common).await;
    platform.stop().await;
    found
}

async fn at_the_door(
    console: &Console,
    http: SocketAddr,
    mailbox: &std::path::Path,
    common: &Common,
) -> anyhow::Result<Vec<Measured>> {
    let client = Client::builder().tls_certs_only([]).no_proxy().pool_max_idle_per_host(CALLERS).build()?;
    let people = People { client: client.clone(), base: format!("http://{http}"), mailbox: mailbox.to_owned() };
    let owner = people.owner("owner@bench.example").await?;
    let path = "/v1/workflows/bench";
    let document = json!({ "steps": [{ "id": "end", "kind": "pass", "output": "done" }] });
    let defined = client
        .put(format!("{}{path}", people.base))
        .bearer_auth(&owner)
        .json(&document)
        .send()
        .await?
        .error_for_status()?;
    let position = defined.json::<serde_json::Value>().await?;
    let position = position.get("position").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let ours = Get { client: client.clone(), url: format!("{}{path}", people.base), token: Some(owner) };
    let row = Get { url: format!("{}?at_least={position}", ours.url), ..ours.clone() }.once().await?;

    let stop = CancellationToken::new();
    let constant = constant(row.clone(), stop.clone()).await?;
    let limit = Get { client, url: format!("http://{constant}/"), token: None };
    let mut measured = vec![throughput(console, &ours, &limit, common).await?];
    stop.cancel();
    measured.extend(steady(console, &ours, common).await?);
    measured.push(token::measure(console, common)?);
    measured.push(rate::measure(console, common).await?);
    measured.push(logins::measure(console, &people, common).await?);
    Ok(measured)
}

/// One request, again and again.
#[derive(Clone)]
struct Get {
    client: Client,
    url: String,
    token: Option<String>,
}

impl Get {
    async fn once(&self) -> anyhow::Result<Bytes> {
        let mut request = self.client.get(&self.url);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = request.send().await?;
        ensure!(response.status().is_success(), "{} was answered with {}", self.url, response.status());
        Ok(response.bytes().await?)
    }

    /// As many as fit into a time, by several callers.
    async fn turn(&self, time: Duration) -> anyhow::Result<f64> {
        let (began, mut callers) = (Instant::now(), JoinSet::new());
        for _ in 0..CALLERS {
            let get = self.clone();
            callers.spawn(async move {
                let mut done = 0;
                while began.elapsed() < time {
                    get.once().await?;
                    done += 1;
                }
                anyhow::Ok(done)
            });
        }
        let mut done = 0;
        while let Some(one) = callers.join_next().await {
            done += one??;
        }
        Ok(rounds::rate(done, began.elapsed()))
    }
}

/// The same server as ours, that says the same to everybody.
async fn constant(body: Bytes, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().route("/", get(move || async move { ([(CONTENT_TYPE, "application/json")], body) }));
    tokio::spawn(async move {
        let serving = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
        let _ = serving.await;
    });
    Ok(address)
}

async fn throughput(console: &Console, ours: &Get, limit: &Get, common: &Common) -> anyhow::Result<Measured> {
    let bar = rounds::bar(console, "http read", common.rounds * 2);
    let (mut own, mut raw) = (Samples::default(), Samples::default());
    for get in [ours, limit] {
        get.turn(common.turn() / 4).await?;
    }
    for round in 0..common.rounds {
        for first in [true, false] {
            match first == rounds::ours_first(round) {
                true => own.push(ours.turn(common.turn()).await?),
                false => raw.push(limit.turn(common.turn()).await?),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let detail = json!({ "callers": CALLERS });
    Ok(Measured::of_rounds("http read", "per s", &own, &raw, Reach::Share(0.5)).with(detail))
}

/// Requests that are due by the clock, each timed from when it was due.
async fn steady(console: &Console, ours: &Get, common: &Common) -> anyhow::Result<Vec<Measured>> {
    let count = (common.seconds * RATE).ceil().max(1.0) as u32;
    let bar = console.bar("http read, steady");
    bar.set_length(u64::from(count));
    let (began, get, mut calls) = (Instant::now(), Arc::new(ours.clone()), JoinSet::new());
    let mut samples = Samples::default();
    for number in 0..count {
        let due = began + Duration::from_secs_f64(f64::from(number) / RATE);
        tokio::time::sleep_until(due.into()).await;
        let (get, counts) = (Arc::clone(&get), f64::from(number) >= f64::from(count) * WARM_UP);
        calls.spawn(async move {
            get.once().await?;
            anyhow::Ok(counts.then(|| milliseconds(due.elapsed())))
        });
        bar.inc(1);
        while let Some(done) = calls.try_join_next() {
            done??.into_iter().for_each(|sample| samples.push(sample));
        }
    }
    while let Some(done) = calls.join_next().await {
        done??.into_iter().for_each(|sample| samples.push(sample));
    }
    bar.finish_and_clear();
    let detail =
        json!({ "requests": samples.len(), "p999_ms": samples.quantile(0.999), "max_ms": samples.quantile(1.0) });
    Ok(vec![
        Measured::alone("http read p50 at 1,000/s", "ms", samples.quantile(0.5), Reach::Told),
        Measured::alone("http read p99 at 1,000/s", "ms", samples.quantile(0.99), Reach::AtMost(10.0)).with(detail),
    ])
}
