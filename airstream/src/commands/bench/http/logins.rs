//! A login beside one hash of a password, eight of each at a time.

use std::time::{Duration, Instant};

use anyhow::ensure;
use identity::password::Hasher;
use serde_json::json;
use tokio::task::JoinSet;

use super::super::Common;
use super::super::latency::milliseconds;
use super::super::report::{Measured, Reach};
use super::super::rounds::{self, Samples};
use super::people::{PASSWORD, People};
use crate::output::Console;

const AT_ONCE: usize = 8;
/// So many accounts that nobody's limit of tries is met.
const ACCOUNTS: usize = 64;
/// Of one side, in a round.
const LOGINS: usize = 64;

pub(super) async fn measure(console: &Console, people: &People, common: &Common) -> anyhow::Result<Measured> {
    let mut making = JoinSet::new();
    for number in 0..ACCOUNTS {
        let people = people.clone();
        making.spawn(async move { people.person(&address(number)).await });
    }
    while let Some(made) = making.join_next().await {
        made??;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let hasher = Hasher::new(cores, Duration::from_secs(60));
    let hash = hasher.hash(PASSWORD.into()).await.map_err(|problem| anyhow::anyhow!("{}", problem.detail))?;
    let bar = rounds::bar(console, "logins", common.rounds * 2);
    let (mut ours, mut limit) = (Samples::default(), Samples::default());
    for round in 0..common.rounds {
        for first in [true, false] {
            match first == rounds::ours_first(round) {
                true => ours.push(log_in(people).await?.quantile(0.99)),
                false => limit.push(verify(&hasher, &hash).await?.quantile(0.99)),
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let detail = json!({ "at_once": AT_ONCE, "logins_per_round": LOGINS });
    Ok(Measured::of_rounds("login p99", "ms", &ours, &limit, Reach::Times(1.5)).with(detail))
}

fn address(number: usize) -> String {
    format!("person{number}@bench.example")
}

async fn log_in(people: &People) -> anyhow::Result<Samples> {
    let mut callers = JoinSet::new();
    for caller in 0..AT_ONCE {
        let people = people.clone();
        callers.spawn(async move {
            let mut samples = Vec::new();
            for number in (caller..LOGINS).step_by(AT_ONCE) {
                let body = json!({ "login": address(number % ACCOUNTS), "password": PASSWORD });
                let began = Instant::now();
                let request = people.client.post(format!("{}/v1/auth/login", people.base)).json(&body);
                let response = request.header("x-forwarded-for", format!("198.18.0.{number}")).send().await?;
                ensure!(response.status().is_success(), "a login was answered with {}", response.status());
                response.bytes().await?;
                samples.push(milliseconds(began.elapsed()));
            }
            Ok(samples)
        });
    }
    gather(callers).await
}

async fn verify(hasher: &Hasher, hash: &str) -> anyhow::Result<Samples> {
    let mut callers = JoinSet::new();
    for caller in 0..AT_ONCE {
        let (hasher, hash) = (hasher.clone(), hash.to_owned());
        callers.spawn(async move {
            let mut samples = Vec::new();
            for _ in (caller..LOGINS).step_by(AT_ONCE) {
                let began = Instant::now();
                let right = hasher.verify(PASSWORD.into(), Some(hash.clone())).await;
                ensure!(matches!(right, Ok(true)), "a right password is wrong");
                samples.push(milliseconds(began.elapsed()));
            }
            Ok(samples)
        });
    }
    gather(callers).await
}

async fn gather(mut callers: JoinSet<anyhow::Result<Vec<f64>>>) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    while let Some(done) = callers.join_next().await {
        done??.into_iter().for_each(|sample| samples.push(sample));
    }
    Ok(samples)
}
