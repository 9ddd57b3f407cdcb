//! What is broken when: decided by the seed before anything starts. "When" counts answered commands, because seconds mean
//! something else on every machine.

use std::fmt;
use std::time::Duration;

use crate::dice::Dice;
use crate::profile::Profile;

/// A process that can be hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// One of the two `airstream serve`.
    Airstream(usize),
    Nats,
    Postgres,
}

/// What is done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9`, all at the same moment.
    Kill(Vec<Target>),
    /// `kill -9` of one of PostgreSQL's processes: the n-th, modulo how many there are.
    KillBackend(usize),
    /// `SIGSTOP`, and `SIGCONT` after so long. Meanwhile the plan goes on.
    Pause(Vec<Target>, Duration),
    /// Asked to end in order, and started again.
    Restart(Vec<Target>),
}

/// A fault and the number of answered commands at which it strikes.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) after: u64,
    pub(crate) fault: Fault,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |targets: &[Target]| targets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        match self {
            Self::Kill(targets) => write!(f, "kill -9 {}", names(targets)),
            Self::KillBackend(_) => f.write_str("kill -9 one of PostgreSQL's processes"),
            Self::Pause(targets, time) => write!(f, "pause {} for {} ms", names(targets), time.as_millis()),
            Self::Restart(targets) => write!(f, "restart {} in order", names(targets)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Airstream(number) => write!(f, "airstream-{number}"),
            Self::Nats => f.write_str("nats"),
            Self::Postgres => f.write_str("postgres"),
        }
    }
}

const BOTH: [Target; 2] = [Target::Airstream(0), Target::Airstream(1)];
const ALL: [Target; 4] = [Target::Airstream(0), Target::Airstream(1), Target::Nats, Target::Postgres];

/// The whole plan, in order.
pub(crate) fn faults(profile: &Profile) -> Vec<Planned> {
    let mut dice = Dice::new(profile.seed, "faults", 0);
    let mut faults: Vec<Fault> = Vec::new();
    // Every kind of fault is in every plan, in these proportions; the seed decides order, place and length.
    for number in 0..profile.kills {
        faults.push(match number % 16 {
            0 | 4 | 8 | 12 => Fault::Kill(vec![Target::Airstream(0)]),
            1 | 5 | 9 | 13 => Fault::Kill(vec![Target::Airstream(1)]),
            2 | 7 | 10 => Fault::Kill(vec![Target::Nats]),
            3 | 11 => Fault::Kill(vec![Target::Postgres]),
            6 => Fault::KillBackend(dice.between(0, 64) as usize),
            14 => Fault::Kill(BOTH.to_vec()),
            _ => Fault::Kill(ALL.to_vec()),
        });
    }
    for number in 0..profile.pauses {
        let targets = match number % 8 {
            0 | 4 | 6 => vec![Target::Airstream(0)],
            1 | 5 => vec![Target::Airstream(1)],
            2 => vec![Target::Nats],
            3 => vec![Target::Postgres],
            _ => BOTH.to_vec(),
        };
        // Some are as long as they may be: there it matters that nobody believes to own what others took over.
        let longest = profile.longest_pause.as_millis() as u64;
        let length = if number % 4 == 0 { longest * 3 / 4..longest } else { 50..longest / 4 };
        faults.push(Fault::Pause(targets, Duration::from_millis(dice.between(length.start, length.end))));
    }
    for number in 0..profile.restarts {
        faults.push(Fault::Restart(match number % 6 {
            0 | 4 => vec![Target::Airstream(0)],
            1 => vec![Target::Airstream(1)],
            2 => vec![Target::Nats],
            3 => vec![Target::Postgres],
            _ => BOTH.to_vec(),
        }));
    }
    dice.shuffle(&mut faults);
    let mut places: Vec<u64> =
        faults.iter().map(|_| dice.between(profile.commands / 50, profile.commands * 49 / 50)).collect();
    places.sort_unstable();
    places.into_iter().zip(faults).map(|(after, fault)| Planned { after, fault }).collect()
}
