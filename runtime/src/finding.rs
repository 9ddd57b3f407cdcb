//! What was found when a server was looked at, before anything depends on it.

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// We would start, and promise less than usual, or stop some day.
    Warn,
    /// We would not start.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Names it for programs, for ever: `nats.durability`.
    pub code: &'static str,
    /// How it is to be taken.
    pub severity: Severity,
    /// What was seen, and what it means.
    pub detail: String,
    /// What to do about it; empty if nothing.
    pub advice: String,
}

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn ok(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, severity: Severity::Ok, detail: detail.into(), advice: String::new() }
    }

    /// Worth a look.
    #[must_use]
    pub fn warn(code: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { code, severity: Severity::Warn, detail: detail.into(), advice: advice.into() }
    }

    /// In the way of a start.
    #[must_use]
    pub fn fail(code: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { code, severity: Severity::Fail, detail: detail.into(), advice: advice.into() }
    }
}
