//! What it costs to verify an access token that was never seen before.

use std::hint::black_box;
use std::time::Instant;

use identity::token::{Claims, Keys, LIFETIME_SECONDS, SigningKey};
use runtime::clock;

use super::super::Common;
use super::super::report::{Measured, Reach};
use super::super::rounds::{self, Samples};
use crate::output::Console;

/// Verifications between two looks at the clock.
const MANY: usize = 1_000;

pub(super) fn measure(console: &Console, common: &Common) -> anyhow::Result<Measured> {
    let names = ("https://air.example", "https://air.example/v1");
    let keys = Keys::new(names.0, names.1, SigningKey::generate(), []);
    let now = clock::now().timestamp();
    let claims = Claims {
        iss: names.0.to_owned(),
        aud: names.1.to_owned(),
        sub: clock::fresh_id("usr_"),
        sid: clock::fresh_id("ses_"),
        tid: Some(clock::fresh_id("tnt_")),
        scope: None,
        jti: clock::fresh_id("tok_"),
        iat: now,
        exp: now + LIFETIME_SECONDS,
        auth_time: now,
        amr: vec!["pwd".to_owned()],
    };
    let token = keys.sign(&claims);
    let bar = rounds::bar(console, "token", common.rounds);
    let mut samples = Samples::default();
    for _ in 0..common.rounds {
        let began = Instant::now();
        for _ in 0..MANY {
            let verified = black_box(&keys).verify(black_box(&token));
            anyhow::ensure!(verified.is_ok(), "a token of our own is refused: {verified:?}");
        }
        samples.push(began.elapsed().as_secs_f64() * 1_000_000.0 / MANY as f64);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Measured::alone("token verification", "us", samples.median(), Reach::AtMost(60.0)))
}
