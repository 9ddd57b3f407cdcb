//! The HTTP door: every route behind one stack of layers.
//!
//! ```text
//! request id, trace → what browsers are told → compression → panic becomes a problem → size of the head → where from
//!     → time limit → size limit → how often from there → who asks → how often they ask → what the key stands for
//!     → whether the position exists → route
//! ```

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kernel::Problem;
use nats::Connection;
use projections::idempotency::IdempotencyKeys;
use projections::{Database, Fold, Progress, RolledBack};
use rest::{Access, Fault, Quotas};
use runtime::consume::HandleError;
use runtime::{Commands, Executor, Log, telemetry, trace};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tracing::Instrument as _;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use vault::Digester;

use crate::browsers::{self, Browsers};
use crate::connections;
use crate::docs;
use crate::guard::{self, Guard, Needs};
use crate::horizon::{self, Horizon};
use crate::idempotency;
use crate::limits::{self, Limiter};
use crate::origin::{self, Proxies};
use crate::{routes, shape};

/// A projection that this program knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// Its version; two may run beside each other while the newer one fills itself.
    pub version: u32,
    /// Its consumer: `<name>_v<version>`.
    pub consumer: String,
}

/// What operators can have done to projections.
#[async_trait]
pub trait Operations: Send + Sync + 'static {
    /// The projections.
    fn projections(&self) -> Vec<Known>;

    /// Folds the log once more: to compare, or to take the live rows' place. Dropping the future stops it.
    ///
    /// # Errors
    /// See [`projections::rebuild`].
    async fn fold(
        &self,
        projection: &Known,
        switch: bool,
        progress: mpsc::Sender<Progress>,
    ) -> Result<Fold, HandleError>;

    /// Brings back the rows that the last rebuild has switched out.
    ///
    /// # Errors
    /// See [`projections::roll_back`].
    async fn roll_back(&self, projection: &Known) -> Result<RolledBack, HandleError>;
}

/// Limits of the HTTP door.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Largest body, in bytes.
    pub body_limit_bytes: usize,
    /// Longest time until a response begins. A stream may go on after that.
    pub request_timeout: Duration,
    /// Longest time that a connection may take for the head of its first request, or be idle and take for the head of its next.
    pub header_timeout: Duration,
    /// Most connections at once.
    pub max_connections: usize,
    /// Who may say that a request comes from somebody else.
    pub proxies: Proxies,
    /// What browsers are told.
    pub browsers: Browsers,
}

/// What the door is made of.
pub struct Parts {
    /// Takes commands.
    pub executor: Executor,
    /// Executes commands, here or where their shard is.
    pub commands: Arc<dyn Commands>,
    /// For reading events.
    pub log: Arc<dyn Log>,
    /// For reading rows.
    pub database: Database,
    /// For health.
    pub connection: Connection,
    /// Who may come in.
    pub access: Arc<dyn Access>,
    /// What operators can do.
    pub operations: Arc<dyn Operations>,
    /// Renders metrics, in the text format of Prometheus.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// How often somebody may ask; `None`: as often as they like.
    pub limiter: Option<Arc<Limiter>>,
    /// Hides what requests with a key were about.
    pub digester: Digester,
    /// What tenants may use.
    pub quotas: Arc<dyn Quotas>,
    /// Routes of services.
    pub services: Vec<OpenApiRouter>,
}

#[derive(OpenApi)]
#[openapi(info(title = "Airstream", license(name = "Apache-2.0", identifier = "Apache-2.0")))]
struct Description;

/// Serves HTTP until `stop`, and then until the requests in hand are answered.
pub async fn serve(listener: TcpListener, parts: Parts, options: HttpOptions, stop: CancellationToken) {
    let limits =
        connections::Limits { header_timeout: options.header_timeout, max_connections: options.max_connections };
    connections::serve(listener, router(parts, options, stop.clone()), limits, stop).await;
}

fn router(parts: Parts, options: HttpOptions, stop: CancellationToken) -> Router {
    let Parts {
        executor,
        commands,
        log,
        database,
        connection,
        access,
        operations,
        metrics,
        limiter,
        digester,
        quotas,
        services,
    } = parts;
    let horizon = Horizon::of(Arc::clone(&log));
    let mut inside = OpenApiRouter::with_openapi(Description::openapi())
        .merge(routes::commands::router(executor, commands, database.clone()))
        .merge(routes::events::router(Arc::clone(&log), database.clone(), stop.clone()))
        .merge(routes::instances::router(database.clone()))
        .merge(routes::operations::router(log, database.clone(), operations, stop))
        .merge(routes::parked::router(database.clone()));
    for service in services {
        inside = inside.merge(service);
    }
    let keys = idempotency::Keys::new(IdempotencyKeys::new(&database), digester);
    let inside = inside.merge(routes::health::router(connection, database));
    let (inside, mut description) = inside.split_for_parts();
    crate::openapi::complete(&mut description);
    let mut plain = docs::OPEN.to_vec();
    plain.push(("/metrics", Needs::Scope(rest::OPERATE.to_owned())));
    let guard = Guard::new(access, &description, &plain);
    let door = limits::Door { limiter, quotas, guard: guard.clone() };
    inside
        .merge(docs::router(&description))
        .route("/metrics", get(move || async move { metrics_text(metrics()) }))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(horizon, horizon::within))
        .layer(middleware::from_fn_with_state(keys, idempotency::told))
        .layer(middleware::from_fn_with_state(door.clone(), limits::by_caller))
        .layer(middleware::from_fn_with_state(guard, guard::guard))
        .layer(middleware::from_fn_with_state(door, limits::by_address))
        .layer(DefaultBodyLimit::max(options.body_limit_bytes))
        .layer(middleware::from_fn_with_state(options.request_timeout, within_time))
        .layer(middleware::from_fn_with_state(Arc::new(options.proxies), origin::origin))
        .layer(middleware::from_fn(shape::within_bounds))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(CompressionLayer::new().compress_when(worth_compressing()))
        .layer(option_layer(options.browsers.cors()))
        .layer(middleware::from_fn_with_state(Arc::new(options.browsers), browsers::guarded))
        .layer(middleware::from_fn(traced))
}

/// Small answers are not, and streams must not wait in a compressor until it has enough.
fn worth_compressing() -> impl Predicate {
    let streams = NotForContentType::const_new("application/x-ndjson").and(NotForContentType::SSE);
    SizeAbove::new(1_024).and(streams)
}

fn metrics_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// W3C trace context, as a caller gives it and as the routes see it.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// And as an answer tells it: where the trace of this request goes on.
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// Methods that may become a label: a caller can make up others without end.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Gives every request an id, the caller's own if it has one, begins its span, and writes one line when it is answered.
async fn traced(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(&REQUEST_ID).filter(|id| !id.is_empty() && id.len() <= 128).cloned();
    let fresh = || HeaderValue::from_str(&runtime::clock::fresh_id("req_")).ok();
    let id = given.or_else(fresh).unwrap_or(HeaderValue::from_static("req_unknown"));
    let (method, began) = (request.method().clone(), std::time::Instant::now());
    let route = request.extensions().get::<MatchedPath>().map_or("-", MatchedPath::as_str).to_owned();
    let method_label = METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other");
    let span = tracing::info_span!(
        target: trace::TARGET,
        parent: None,
        "http",
        otel.name = format!("{method_label} {route}"),
        otel.kind = "server",
        http.request.method = method_label,
        http.route = route.as_str(),
        http.response.status_code = tracing::field::Empty,
    );
    let mut context = request.headers().get(&TRACEPARENT).and_then(|value| value.to_str().ok()).map(str::to_owned);
    trace::step(&span, &mut context);
    let own = trace::traceparent(&span).and_then(|own| HeaderValue::from_str(&own).ok());
    if let Some(own) = &own {
        // What a route passes on continues this span.
        request.headers_mut().insert(TRACEPARENT, own.clone());
    }
    let _in_hand = telemetry::InHand::at("http");
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(own) = own {
        response.headers_mut().insert(TRACERESPONSE, own);
    }
    span.record("http.response.status_code", response.status().as_u16());
    let (status, took) = (response.status().as_u16(), began.elapsed());
    tracing::debug!(%method, route, status, took_ms = took.as_millis() as u64, request_id = ?id, "answered");
    let labels = [("method", method_label.to_owned()), ("route", route), ("status", status.to_string())];
    metrics::histogram!(telemetry::HTTP_REQUEST_DURATION_SECONDS, &labels).record(took.as_secs_f64());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

async fn within_time(State(limit): State<Duration>, request: Request, next: Next) -> Result<Response, Fault> {
    let late = |_| {
        Problem::new(
            504,
            "timed_out",
            "The answer took too long. A command may have been accepted: ask again with the same id.",
        )
    };
    Ok(tokio::time::timeout(limit, next.run(request)).await.map_err(late)?)
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(panic = text, "a route panicked");
    Fault(Problem::new(500, "defect", "Something of ours broke while answering; it has been logged.")).into_response()
}

async fn not_found(uri: Uri) -> Fault {
    Problem::new(404, "unknown_route", format!("There is no route `{}`; /openapi.json lists them.", uri.path())).into()
}

async fn method_not_allowed() -> Fault {
    Problem::new(405, "method_not_allowed", "The route exists, but not for this method; /openapi.json lists them.")
        .into()
}
