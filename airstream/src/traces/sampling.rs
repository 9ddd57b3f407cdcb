//! Which traces are recorded: the door decides, everything after it follows. A group commit belongs to no single trace; it
//! is recorded when one that it is linked to is.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

/// A share of the traces that begin here, and whatever a recorded one leads to.
#[derive(Debug, Clone)]
pub(super) struct OfLinked {
    beginning: Sampler,
}

impl OfLinked {
    /// From 0, none, to 1, all.
    pub(super) fn new(ratio: f64) -> Self {
        Self { beginning: Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))) }
    }
}

impl ShouldSample for OfLinked {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let begins = parent.is_none_or(|parent| !parent.has_active_span());
        let linked = begins && links.iter().any(|link| link.span_context.is_sampled());
        let all = Sampler::AlwaysOn;
        let sampler = if linked { &all } else { &self.beginning };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::SamplingDecision;

    use super::*;

    #[test]
    fn a_span_is_recorded_with_what_it_is_linked_to() {
        let of = |flags| {
            let context = SpanContext::new(TraceId::from(1), SpanId::from(1), flags, true, TraceState::default());
            let links = [Link::with_context(context)];
            let sampler = OfLinked::new(0.0);
            sampler.should_sample(None, TraceId::from(2), "group", &SpanKind::Internal, &[], &links).decision
        };
        assert_eq!(of(TraceFlags::SAMPLED), SamplingDecision::RecordAndSample);
        assert_eq!(of(TraceFlags::default()), SamplingDecision::Drop);
    }
}
