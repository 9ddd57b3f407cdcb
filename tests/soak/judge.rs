//! Flat, or creeping? The first third of a soak is for settling; the middle one is compared with the last.

use serde_json::{Value, json};

use crate::load::Left;
use crate::watch::{Sample, quantile, summary};

/// What grows by less than this share over the last two thirds is flat, where some noise must be allowed besides.
const SHARE: f64 = 0.10;
/// Memory that comes and goes with collections and buffers.
const NOISE_MIB: f64 = 8.0;
/// What the server keeps in memory for every stream, for ever: known, written down, and no leak (0.44 KB measured, with
/// the message ids of the duplicate window and the room that its collector takes on top).
const NATS_KIB_PER_STREAM: f64 = 2.0;
/// Latency that other programs of the machine cause.
const NOISE_MS: f64 = 5.0;
/// Half a second of the load.
const NOISE_EVENTS: f64 = 150.0;

/// The summary, with everything that should not be in `complaints`.
pub(crate) fn judge(samples: &[Sample], left: &Left, judged: bool) -> Value {
    let mut complaints: Vec<String> = Vec::new();
    let last = samples.last().cloned().unwrap_or_default();
    let mut refuse = |wrong: bool, complaint: String| {
        if wrong {
            complaints.push(complaint);
        }
    };
    refuse(last.commands == 0 || last.runs == 0, "no command was sent".to_owned());
    refuse(
        samples.iter().all(|sample| sample.airstream_mib <= 0.0 || sample.nats_mib <= 0.0),
        "no memory was seen".to_owned(),
    );
    refuse(samples.iter().all(|sample| sample.delivery_p50_ms <= 0.0), "no probe was delivered".to_owned());
    refuse(last.errors > 0, format!("{} commands were not accepted", last.errors));
    refuse(left.parked > 0, format!("{} commits or effects are parked", left.parked));
    refuse(left.unfinished_runs > 0, format!("{} runs did not end", left.unfinished_runs));
    refuse(left.lag > 0, format!("consumers are {} commits behind after the load has ended", left.lag));

    let thirds = samples.len() / 3;
    let late = samples.get(thirds..).unwrap_or_default();
    let new_streams = late.first().map_or(0, |first| last.runs.saturating_sub(first.runs)) as f64;
    let mut series = serde_json::Map::new();
    for (name, of, noise) in [
        ("airstream_mib", (|sample| sample.airstream_mib) as fn(&Sample) -> f64, NOISE_MIB),
        ("nats_mib", |sample| sample.nats_mib, NOISE_MIB * 4.0 + new_streams * NATS_KIB_PER_STREAM / 1024.0),
        ("postgres_mib", |sample| sample.postgres_mib, NOISE_MIB * 2.0),
        ("answer_p50_ms", |sample| sample.answer_p50_ms, NOISE_MS),
        ("answer_p99_ms", |sample| sample.answer_p99_ms, NOISE_MS * 4.0),
        ("delivery_p50_ms", |sample| sample.delivery_p50_ms, NOISE_MS),
        ("lag_events", |sample| sample.lag_events as f64, NOISE_EVENTS),
        ("effects_waiting", |sample| sample.effects_waiting as f64, NOISE_EVENTS),
    ] {
        let values: Vec<f64> = samples.iter().map(of).collect();
        let found = Growth::of(late, of);
        let creeps = judged && found.creeps(noise);
        refuse(creeps, format!("{name} grows: {:.1} in the middle third, {:.1} in the last", found.middle, found.last));
        let mut told = summary(&values);
        told["middle_third"] = json!(found.middle);
        told["last_third"] = json!(found.last);
        told["grown_by_slope"] = json!(found.by_slope);
        series.insert(name.to_owned(), told);
    }
    json!({
        "minutes": last.seconds / 60.0,
        "judged": judged,
        "commands": last.commands,
        "runs": last.runs,
        "worst_delivery_ms": quantile(&samples.iter().map(|sample| sample.delivery_max_ms).collect::<Vec<_>>(), 1.0),
        "series": series,
        "complaints": complaints,
    })
}

/// How a value has moved over the last two thirds.
struct Growth {
    middle: f64,
    last: f64,
    /// The median of all slopes between two samples (Theil–Sen), over the whole time: single outliers do not move it.
    by_slope: f64,
}

impl Growth {
    fn of(late: &[Sample], value: fn(&Sample) -> f64) -> Self {
        let values: Vec<(f64, f64)> = late.iter().map(|sample| (sample.seconds, value(sample))).collect();
        let median = |part: &[(f64, f64)]| quantile(&part.iter().map(|(_, value)| *value).collect::<Vec<_>>(), 0.5);
        let (middle, last) = values.split_at(values.len() / 2);
        let mut slopes = Vec::new();
        for (index, (at, value)) in values.iter().enumerate() {
            slopes.extend(
                values[index + 1..].iter().map(|(later, after)| (after - value) / (later - at).max(f64::EPSILON)),
            );
        }
        let time = values.last().map_or(0.0, |last| last.0) - values.first().map_or(0.0, |first| first.0);
        Self { middle: median(middle), last: median(last), by_slope: quantile(&slopes, 0.5) * time }
    }

    /// Both have to agree: a step that stays is not creeping, and neither is a slope within the noise.
    fn creeps(&self, noise: f64) -> bool {
        let allowed = self.middle * SHARE + noise;
        self.last - self.middle > allowed / 2.0 && self.by_slope > allowed
    }
}

#[test]
fn a_leak_is_told_from_noise_and_from_settling() {
    let left = || Left { unfinished_runs: 0, parked: 0, lag: 0 };
    let soak = |memory: &dyn Fn(u32) -> f64| {
        let samples: Vec<Sample> = (1..=240)
            .map(|n| Sample {
                seconds: f64::from(n) * 5.0,
                airstream_mib: memory(n),
                nats_mib: 100.0,
                commands: 1,
                runs: 1,
                delivery_p50_ms: 1.0,
                ..Sample::default()
            })
            .collect();
        judge(&samples, &left(), true)["complaints"].as_array().unwrap().len()
    };
    assert_eq!(soak(&|n| 100.0 + f64::from(n % 7) * 3.0), 0, "noise");
    assert_eq!(soak(&|n| 100.0 + 60.0 * (1.0 - (-f64::from(n) / 15.0).exp())), 0, "it settles in the first third");
    assert_eq!(soak(&|n| if n == 200 { 900.0 } else { 100.0 }), 0, "one peak");
    assert_eq!(soak(&|n| 100.0 + f64::from(n) * 0.25 + f64::from(n % 7)), 1, "three MiB a minute");
}
