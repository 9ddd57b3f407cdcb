//! Export of traces over OTLP, as HTTP with protobuf. Without an endpoint nothing of this exists.
//!
//! The exporter has a bounded queue and a thread of its own. A collector that is away costs spans, never time, and one
//! line of the log, not one per try.

mod sampling;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::Telemetry;
use sampling::OfLinked;

/// How long a collector may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the last spans may take at the end.
const FLUSH: Duration = Duration::from_secs(3);

/// The exporter, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Begins to export if an endpoint is configured, by us or by the standard variables of OpenTelemetry.
    pub(crate) fn start(telemetry: &Telemetry) -> anyhow::Result<Traces> {
        let variable = |name| std::env::var(name).is_ok_and(|value: String| !value.is_empty());
        let configured = telemetry.otlp_endpoint.trim_end_matches('/');
        let standard = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"].into_iter().any(variable);
        if (configured.is_empty() && !standard) || telemetry.sample_ratio <= 0.0 {
            return Ok(Traces(None));
        }
        let client = reqwest::Client::builder().timeout(ANSWER).build()?;
        let runtime = tokio::runtime::Handle::current();
        let client = Collector { client, runtime, away: AtomicBool::new(false) };
        let mut exporter = SpanExporter::builder().with_http().with_http_client(client);
        if !configured.is_empty() {
            exporter = exporter.with_endpoint(format!("{configured}/v1/traces"));
        }
        // The standard variables may name it otherwise, and say more about where it runs.
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if !variable("OTEL_SERVICE_NAME") {
            resource = resource.with_service_name("airstream");
        }
        let provider = SdkTracerProvider::builder()
            // Queue, batch and interval as the standard has them (2,048 spans, 512, 5 s), and its variables.
            .with_batch_exporter(exporter.build()?)
            .with_resource(resource.build())
            .with_sampler(OfLinked::new(telemetry.sample_ratio))
            .build();
        Ok(Traces(Some(provider)))
    }

    /// The layer that turns our spans, and nothing else, into the exporter's.
    pub(crate) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = self.0.as_ref()?.tracer("airstream");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_context_activation(false);
        Some(layer.with_filter(Targets::new().with_target(runtime::trace::TARGET, LevelFilter::INFO)))
    }

    /// Sends what is left, as far as it goes in a few seconds.
    pub(crate) async fn finish(self) {
        let Some(provider) = self.0 else { return };
        let last = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH));
        match tokio::time::timeout(FLUSH, last).await {
            Ok(Ok(Ok(()))) => {}
            other => tracing::debug!(?other, "the last spans may not have reached the collector"),
        }
    }
}

/// Keeps spans out of the log: they have a place of their own.
pub(crate) fn not_in_the_log(filter: EnvFilter) -> EnvFilter {
    match format!("{}=off", runtime::trace::TARGET).parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

/// The innermost reason says it best.
fn root(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Our HTTP client, for an exporter whose thread knows no runtime.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
    away: AtomicBool,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut response = Response::new(answer.bytes().await?);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok::<_, reqwest::Error>(response)
        });
        let answer = match sending.await {
            Ok(answer) => answer.map_err(|error| HttpError::from(error.without_url())),
            Err(error) => Err(HttpError::from(error)),
        };
        let trouble = match &answer {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answered {}", response.status())),
            Err(error) => Some(root(error.as_ref())),
        };
        match (trouble, self.away.load(Ordering::Relaxed)) {
            (Some(reason), false) => {
                tracing::warn!(reason, "the collector of traces does not take them; spans are dropped until it does");
                self.away.store(true, Ordering::Relaxed);
            }
            (None, true) => {
                tracing::info!("the collector takes traces again");
                self.away.store(false, Ordering::Relaxed);
            }
            _ => {}
        }
        answer
    }
}
