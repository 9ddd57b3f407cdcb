//! What a measurement found, for people and for programs.

use serde::Serialize;
use serde_json::{Value, json};

use super::rounds::Samples;
use crate::failure::Outcome;
use crate::output::Console;

/// One figure beside its limit.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    name: String,
    unit: &'static str,
    ours: f64,
    /// `None` when nothing underneath does the same.
    limit: Option<f64>,
    ratio: Option<f64>,
    /// What we want, in words; empty when a figure is only told.
    reach: String,
    /// `None` when there is nothing to reach.
    met: Option<bool>,
    detail: Value,
}

/// What we want of a figure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reach {
    /// The ratio is at least this.
    Share(f64),
    /// The ratio is at least this, and so is our own figure: that is what the machine of the plan can do.
    ShareAndRate(f64, f64),
    /// The ratio is at most this.
    Times(f64),
    /// Our own figure is at most this.
    AtMost(f64),
    /// It is told, and nothing is wanted of it.
    Told,
}

impl Reach {
    fn words(self, unit: &str) -> String {
        match self {
            Reach::Share(share) => format!(">= {share} of the limit"),
            Reach::ShareAndRate(share, rate) => format!(">= {share} of the limit and >= {} {unit}", figure(rate)),
            Reach::Times(times) => format!("<= {times} times the limit"),
            Reach::AtMost(most) => format!("<= {} {unit}", figure(most)),
            Reach::Told => String::new(),
        }
    }

    fn met(self, ours: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Reach::Share(share) => ratio.map(|ratio| ratio >= share),
            Reach::ShareAndRate(share, rate) => ratio.map(|ratio| ratio >= share && ours >= rate),
            Reach::Times(times) => ratio.map(|ratio| ratio <= times),
            Reach::AtMost(most) => Some(ours <= most),
            Reach::Told => None,
        }
    }
}

impl Measured {
    /// Both sides' rounds. The ratio is the median of the rounds' ratios: the two turns of a round met the same weather.
    pub(super) fn of_rounds(name: &str, unit: &'static str, ours: &Samples, limit: &Samples, reach: Reach) -> Self {
        let ratios = ours.over(limit);
        let ratio = Some(ratios.median());
        Self {
            name: name.to_owned(),
            unit,
            ours: ours.median(),
            limit: Some(limit.median()),
            ratio,
            reach: reach.words(unit),
            met: reach.met(ours.median(), ratio),
            detail: json!({
                "rounds": ours.len(),
                "ours_spread": ours.spread(),
                "limit_spread": limit.spread(),
                "ratio_spread": ratios.spread(),
            }),
        }
    }

    /// A figure that stands alone.
    pub(super) fn alone(name: &str, unit: &'static str, ours: f64, reach: Reach) -> Self {
        Self {
            name: name.to_owned(),
            unit,
            ours,
            limit: None,
            ratio: None,
            reach: reach.words(unit),
            met: reach.met(ours, None),
            detail: json!({}),
        }
    }

    /// Says more about it.
    pub(super) fn with(mut self, detail: Value) -> Self {
        if let (Some(all), Value::Object(more)) = (self.detail.as_object_mut(), detail) {
            all.extend(more);
        }
        self
    }

    fn cells(&self) -> Vec<String> {
        let optional = |value: Option<f64>| value.map(figure).unwrap_or_default();
        let met = self.met.map_or("", |met| if met { "yes" } else { "no" });
        vec![
            self.name.clone(),
            self.unit.to_owned(),
            figure(self.ours),
            optional(self.limit),
            self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            self.reach.clone(),
            met.to_owned(),
        ]
    }
}

/// Three digits that mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The machine and every figure.
pub(super) fn print(console: &Console, machine: &Value, measured: &[Measured]) -> Outcome {
    if console.is_json() {
        return console.json(&json!({"machine": machine, "results": measured}));
    }
    let headings = ["name", "unit", "ours", "limit", "ratio", "reach", "met"];
    console.table(&headings, measured.iter().map(Measured::cells).collect())?;
    for (name, value) in machine.as_object().into_iter().flatten() {
        console.say(&console.dim(&format!("{name}: {}", crate::output::cell(Some(value)))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_is_met_by_what_it_says() {
        assert_eq!(Reach::Share(0.5).met(1.0, Some(0.5)), Some(true));
        assert_eq!(Reach::ShareAndRate(0.5, 10.0).met(9.0, Some(0.6)), Some(false));
        assert_eq!(Reach::Times(2.0).met(1.0, Some(2.1)), Some(false));
        assert_eq!(Reach::AtMost(25.0).met(24.0, None), Some(true));
        assert_eq!(Reach::Told.met(24.0, None), None);
        assert_eq!(Reach::AtMost(0.25).words("s"), "<= 0.250 s");
    }

    #[test]
    fn the_ratio_compares_turns_of_the_same_round() {
        // The machine became four times slower after the first round; we are half as fast as the limit all the time.
        let (ours, limit) = (Samples::of([40.0, 10.0, 10.0]), Samples::of([80.0, 20.0, 20.0]));
        let measured = Measured::of_rounds("x", "per s", &ours, &limit, Reach::Share(0.5));
        assert_eq!((measured.ratio, measured.met), (Some(0.5), Some(true)));
    }
}
