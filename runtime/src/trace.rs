//! One trace from a door to the last projection: where spans begin, and how W3C trace context gets in and out of them.
//!
//! ```text
//! door → command → decide → append ······ link ······ group commit
//!                    └ commit (carries the context of the span that decided it)
//!                         ├→ handle <projection>
//!                         └→ handle <reactor> → effect → command → …
//! ```
//! Spans have a target of their own. Without an exporter no layer asks for it, and a span costs one comparison.

use chrono::TimeDelta;
use kernel::Timestamp;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use serde::Deserialize;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{Recorded, clock};

/// The target of every span of a trace, and of nothing else. Filters match by prefix: no module may begin like this.
pub const TARGET: &str = "airstream_spans";

/// Handled later than this after it was written, a commit gets no span: a replay must not add to traces that ended long
/// ago, and would drown the collector.
const STILL_OF_INTEREST: TimeDelta = TimeDelta::hours(1);

/// Most spans for one batch of commits.
const SPANS_PER_BATCH: usize = 100;

/// Whether anybody exports spans.
#[must_use]
pub fn enabled() -> bool {
    tracing::enabled!(target: TARGET, Level::INFO)
}

/// Reads a W3C `traceparent`, version 00 or a later one that begins like it.
fn parse(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower = |text: &str, length| text.len() == length && !text.contains(|c: char| c.is_ascii_uppercase());
    let known = version.len() == 2 && version != "ff" && (version != "00" || parts.next().is_none());
    if !known || !lower(trace, 32) || !lower(span, 16) || flags.len() != 2 {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

/// Makes a span continue what a caller began. What cannot be read is ignored, as the standard asks.
pub fn continues(span: &Span, traceparent: Option<&str>) {
    if !span.is_disabled()
        && let Some(context) = traceparent.and_then(parse)
    {
        // It fails only for a span that has begun already, and this one has not been entered.
        let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
    }
}

/// Names another span as related, without being its parent.
pub fn links(span: &Span, traceparent: &str) {
    if let Some(context) = parse(traceparent) {
        span.add_link(context);
    }
}

/// A span's context for the next one to continue; `None` when nobody exports spans.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    context.is_valid().then(|| format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), flags.to_u8()))
}

/// The context of the span that we are in.
#[must_use]
pub fn current() -> Option<String> {
    if enabled() { traceparent(&Span::current()) } else { None }
}

/// Puts a span in the place of the one that a request came from, so that what follows continues this one.
pub fn step(span: &Span, from: &mut Option<String>) {
    continues(span, from.as_deref());
    if let Some(own) = traceparent(span) {
        *from = Some(own);
    }
}

/// The trace context in a commit's first event, if it is to be recorded.
#[must_use]
pub fn sampled_in(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Peek {
        traceparent: Option<String>,
    }
    let events: Vec<Peek> = serde_json::from_slice(payload).ok()?;
    let text = events.into_iter().next()?.traceparent?;
    parse(&text)?.is_sampled().then_some(text)
}

/// A span per commit of a batch, as far as its trace is recorded and not over long ago. Each continues its commit's trace,
/// and lasts as long as the batch is worked on.
pub(crate) fn handling(consumer: &str, commits: &[&Recorded]) -> Vec<Span> {
    if !enabled() {
        return Vec::new();
    }
    let since = clock::now() - STILL_OF_INTEREST;
    let young = |at: Timestamp| at > since;
    let spans = commits.iter().filter(|commit| young(commit.recorded_at)).filter_map(|commit| {
        let from = sampled_in(&commit.payload)?;
        let span = tracing::info_span!(
            target: TARGET,
            parent: None,
            "handle",
            otel.name = format!("handle {consumer}"),
            otel.kind = "consumer",
            otel.status_code = tracing::field::Empty,
            consumer,
            position = commit.position.sequence(),
            batch = commits.len(),
        );
        continues(&span, Some(&from));
        Some(span)
    });
    spans.take(SPANS_PER_BATCH).collect()
}

/// Says how the work on a batch ended, before its spans end with it.
pub(crate) fn handled(spans: &[Span], well: bool) {
    for span in spans.iter().filter(|_| !well) {
        span.record("otel.status_code", "ERROR");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = parse(good).expect("a valid one");
        assert!(context.is_sampled() && context.is_remote());
        assert!(
            parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later").is_some_and(|c| !c.is_sampled())
        );
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            assert!(parse(bad).is_none(), "{bad:?} was taken");
        }
    }

    #[test]
    fn without_an_exporter_a_context_passes_through_untouched() {
        let mut from = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
        let before = from.clone();
        step(&tracing::info_span!(target: TARGET, "decide"), &mut from);
        assert_eq!(from, before);
        assert_eq!(current(), None);
    }
}
