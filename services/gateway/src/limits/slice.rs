//! What an instance has of one budget: slices that it may spend until they expire, and when to ask for the next one. No
//! clock and no waiting in here: time is handed in.

use std::time::{Duration, Instant};

use super::terms::{Budget, Terms};

/// For how long an instance goes on alone before it asks again.
const ALONE: Duration = Duration::from_secs(1);

/// However quickly a budget grows, it is not asked more often than this once it has been found empty.
const PAUSE: Duration = Duration::from_millis(20);

/// What is to be done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spent {
    /// Let pass.
    Admitted,
    /// Refused, and when to come back.
    Refused(Duration),
    /// The budget has to be asked first.
    Unknown,
}

/// A part of the budget.
#[derive(Debug, Clone, Copy)]
struct Part {
    tokens: u32,
    until: Instant,
}

impl Part {
    fn left(&self, now: Instant) -> u32 {
        if now < self.until { self.tokens } else { 0 }
    }
}

/// While Postgres cannot be asked: a budget of our own, our share of the limit.
#[derive(Debug, Clone, Copy)]
struct Alone {
    budget: Budget,
    share: Terms,
    since: Instant,
    ask_again: Instant,
}

/// One budget, as this instance knows it.
#[derive(Debug)]
pub(super) struct Slice {
    /// What is spent now, and what was taken ahead of time.
    parts: [Part; 2],
    /// How large the next slice should be: what is used up in half of the time that a slice lasts.
    size: u32,
    /// When the slice was begun that is being spent, what of it was used, and whether the next is larger for that.
    begun: Instant,
    used: u32,
    grown: bool,
    asked: bool,
    refused_until: Instant,
    alone: Option<Alone>,
    /// What was left for everybody, and when.
    left: (u32, Instant),
}

impl Slice {
    pub(super) fn new(terms: &Terms, now: Instant) -> Self {
        let none = Part { tokens: 0, until: now };
        Self {
            parts: [none, none],
            size: terms.least,
            begun: now,
            used: 0,
            grown: false,
            asked: false,
            refused_until: now,
            alone: None,
            left: (terms.most, now),
        }
    }

    /// Spends one, if there is one. The second part says how much to ask for, now and in the background.
    pub(super) fn spend(&mut self, terms: &Terms, now: Instant) -> (Spent, Option<u32>) {
        self.turn(terms, now);
        if self.parts[0].tokens > 0 {
            self.parts[0].tokens -= 1;
            self.used += 1;
            return (Spent::Admitted, self.ahead(terms, now));
        }
        if now < self.refused_until {
            return (Spent::Refused(self.refused_until - now), None);
        }
        if let Some(alone) = &mut self.alone {
            let ask = now >= alone.ask_again && !self.asked;
            let at = now.saturating_duration_since(alone.since);
            let spent = match alone.budget.take(&alone.share, at, 1) {
                (1, _) => Spent::Admitted,
                _ => Spent::Refused(alone.budget.wait(&alone.share, at)),
            };
            return (spent, ask.then(|| self.ask(terms)));
        }
        (Spent::Unknown, (!self.asked).then(|| self.ask(terms)))
    }

    /// Puts away what has expired, and learns from it how much to take.
    fn turn(&mut self, terms: &Terms, now: Instant) {
        if self.parts[0].left(now) > 0 {
            return;
        }
        if self.parts[0].tokens > 0 {
            // It expired before it was used up.
            self.size = (self.used / 2).max(terms.least);
        } else if self.used > 0 {
            self.grow(terms, now);
        }
        self.parts[0] = std::mem::replace(&mut self.parts[1], Part { tokens: 0, until: now });
        (self.begun, self.used, self.grown) = (now, 0, false);
        if self.parts[0].left(now) == 0 {
            self.parts[0].tokens = 0;
        }
    }

    /// A slice that is used up within half of its time is followed by a larger one.
    fn grow(&mut self, terms: &Terms, now: Instant) {
        if !self.grown && now.saturating_duration_since(self.begun) < terms.lasts / 2 {
            self.size = self.size.saturating_mul(2);
            self.grown = true;
        }
    }

    /// Asks for the next slice while there is something left of this one, so that nobody has to wait for it.
    fn ahead(&mut self, terms: &Terms, now: Instant) -> Option<u32> {
        let low = self.parts[0].tokens <= self.size / 2 && self.size > 1;
        let due = low && !self.asked && self.parts[1].left(now) == 0 && now >= self.refused_until;
        if !due {
            return None;
        }
        self.grow(terms, now);
        Some(self.ask(terms))
    }

    fn ask(&mut self, terms: &Terms) -> u32 {
        self.asked = true;
        // An eighth of the whole is the most: one instance may have it in hand twice.
        self.size = self.size.min((terms.most / 8).max(1)).max(1);
        self.size
    }

    /// The budget has answered a question that was asked at `asked_at`.
    pub(super) fn given(
        &mut self,
        terms: &Terms,
        granted: u32,
        left: u32,
        wait: Duration,
        asked_at: Instant,
        now: Instant,
    ) {
        (self.asked, self.alone) = (false, None);
        self.left = (left, now);
        self.turn(terms, now);
        let part = Part { tokens: granted, until: asked_at + terms.lasts };
        if self.parts[0].tokens == 0 {
            self.parts[0] = part;
            (self.begun, self.used, self.grown) = (now, 0, false);
        } else {
            self.parts[1] = part;
        }
        if granted == 0 {
            self.refused_until = now + wait.max(PAUSE);
        }
    }

    /// The budget cannot be asked: we go on with our share of it.
    pub(super) fn unreachable(&mut self, share: Terms, now: Instant) {
        self.asked = false;
        let (budget, since) = self.alone.map_or((Budget::default(), now), |alone| (alone.budget, alone.since));
        self.alone = Some(Alone { budget, share, since, ask_again: now + ALONE });
    }

    /// How much is left, as far as is known here.
    pub(super) fn remaining(&self, terms: &Terms, now: Instant) -> u32 {
        let grown = now.saturating_duration_since(self.left.1).as_micros() / terms.step.as_micros().max(1);
        let left = self.left.0.saturating_add(u32::try_from(grown).unwrap_or(u32::MAX));
        let ours = self.parts[0].left(now).saturating_add(self.parts[1].left(now));
        left.saturating_add(ours).min(terms.most)
    }
}
