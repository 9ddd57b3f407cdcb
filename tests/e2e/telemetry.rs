//! What the platform tells about itself: metrics with their meaning, and one trace from a door to the last projection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use runtime::telemetry::{self, Kind};
use serde_json::json;
use stories::eventually;
use tokio::net::TcpListener;

use crate::stack::{Http, Stack};

async fn metrics(http: &Http) -> String {
    http.request("GET", "/metrics").send().await.unwrap().text().await.unwrap()
}

/// Names and kinds as the page declares them.
fn declared<'a>(page: &'a str, what: &str) -> BTreeMap<&'a str, &'a str> {
    page.lines().filter_map(|line| line.strip_prefix(what)?.trim_start().split_once(' ')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_on_the_page_with_its_meaning_and_no_other() {
    let stack = Stack::up(&[]);
    let http = stack.http();
    http.define("nap", json!([{ "id": "nap", "wait": 0.05 }])).await;
    http.start("nap", "n1", json!({})).await;
    http.run_in("n1", &["completed"]).await;
    let ann = json!({ "email": "ann@example.org", "password": "correct horse battery staple" });
    http.json("POST", "/v1/auth/register", Some(ann), 202).await;
    let wanted: BTreeSet<_> = telemetry::METRICS.iter().map(|metric| metric.name).collect();
    let all_there = async || {
        let page = metrics(&http).await;
        let there = declared(&page, "# TYPE");
        wanted.iter().all(|name| there.contains_key(name))
    };
    eventually("every metric has been told", all_there).await;
    let page = metrics(&http).await;
    let (types, helps) = (declared(&page, "# TYPE"), declared(&page, "# HELP"));
    for metric in telemetry::METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert_eq!(types.get(metric.name), Some(&kind), "{} is not on the page\n{page}", metric.name);
        assert!(helps.contains_key(metric.name), "{} says nothing about itself", metric.name);
    }
    for name in types.keys() {
        assert!(wanted.contains(name), "{name} is on the page but not in runtime/src/telemetry.rs");
    }
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        let metric = telemetry::METRICS.iter().find(|metric| {
            let part = name.strip_prefix(metric.name);
            part == Some("") || part.is_some_and(|part| ["_bucket", "_sum", "_count"].contains(&part))
        });
        let metric = metric.unwrap_or_else(|| panic!("{line}"));
        let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
        for label in labels.split("\",").filter_map(|label| label.split_once('=')).map(|(label, _)| label) {
            assert!(label == "le" || metric.labels.contains(&label), "`{label}` is no label of {name}: {line}");
        }
    }
    assert!(page.contains("airstream_command_duration_seconds_bucket{le=\"0.0002\"}"), "{page}");
    assert!(page.contains("airstream_command_duration_seconds_bucket{le=\"10\"}"), "{page}");
    // A quiet log is not a late consumer: nothing waits, and the loops turn.
    for line in page.lines().filter(|line| line.starts_with("airstream_consumer_lag_seconds{")) {
        assert!(line.ends_with(" 0"), "{line}");
    }
}

/// A collector: what it was sent, and what requests of steps carried.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    outside: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let traces = async |State(collector): State<Collector>, body: Bytes| {
            let sent = ExportTraceServiceRequest::decode(body).unwrap();
            let scopes = sent.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            collector.spans.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        };
        let hook = async |State(collector): State<Collector>, headers: HeaderMap| {
            let context = headers.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default();
            collector.outside.lock().unwrap().push(context.to_owned());
        };
        let router = axum::Router::new().route("/v1/traces", post(traces)).route("/hook", post(hook));
        let router = router.with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn named(&self, name: &str, trace: &[u8]) -> Option<Span> {
        self.spans.lock().unwrap().iter().find(|span| span.name == name && span.trace_id == trace).cloned()
    }
}

fn up(stack: &Stack, collector: &str) {
    std::fs::write(stack.folder().join("airstream.toml"), format!("[telemetry]\notlp_endpoint = \"{collector}\"\n"))
        .unwrap();
    let mut command = stack.command();
    command.args(["up", "--detach", "--port", "0"]).env("OTEL_BSP_SCHEDULE_DELAY", "50");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_from_the_door_to_the_last_projection() {
    let collector = Collector::default();
    let url = collector.start().await;
    let stack = Stack::stopped();
    up(&stack, &url);
    let http = stack.http();
    http.define("calling", json!([{ "id": "call", "http": { "method": "POST", "url": format!("{url}/hook") } }])).await;

    let (trace, caller) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let request = http.request("POST", "/v1/workflows/calling/runs").header("content-type", "application/json");
    let request =
        request.header("traceparent", format!("00-{trace}-{caller}-01")).body(r#"{"run_id":"c1","input":{}}"#);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 201);
    let told = response.headers()["traceresponse"].to_str().unwrap().to_owned();
    http.run_in("c1", &["completed"]).await;

    let trace_id = bytes(trace);
    let span = async |name: &str| {
        eventually(name, async || collector.named(name, &trace_id).is_some()).await;
        collector.named(name, &trace_id).unwrap()
    };
    let door = span("POST /v1/workflows/{id}/runs").await;
    assert_eq!(door.parent_span_id, bytes(caller));
    assert_eq!(told, format!("00-{trace}-{}-01", hex(&door.span_id)));
    let command = span("command run.start").await;
    assert_eq!(command.parent_span_id, door.span_id);
    let children = |parent: &Span, name: &str| -> Vec<Span> {
        let spans = collector.spans.lock().unwrap();
        spans.iter().filter(|span| span.name == name && span.parent_span_id == parent.span_id).cloned().collect()
    };
    let child = async |parent: &Span, name: &str| {
        eventually(name, async || !children(parent, name).is_empty()).await;
        children(parent, name).remove(0)
    };
    let decide = child(&command, "decide").await;
    child(&decide, "append").await;
    // The commit carries the span that decided it: whoever handles it goes on from there.
    for consumer in ["commits_v1", "workflows_v1", "runs_v1", "inbox_v1"] {
        child(&decide, &format!("handle {consumer}")).await;
    }
    // A group belongs to nobody's trace; it names its members'.
    let grouped = || {
        let spans = collector.spans.lock().unwrap();
        let links =
            |span: &Span| span.links.iter().any(|link| link.span_id == decide.span_id && link.trace_id == trace_id);
        spans.iter().find(|span| span.name == "group commit" && links(span)).cloned()
    };
    eventually("the group commit", async || grouped().is_some()).await;
    assert_ne!(grouped().unwrap().trace_id, trace_id);

    // The reactor, what it asked of the world, and what it reported.
    let effect = child(&decide, "effect workflow-steps").await;
    let reported = child(&effect, "command run.complete-step").await;
    let decided = child(&reported, "decide").await;
    child(&decided, "handle runs_v1").await;
    let outside = collector.outside.lock().unwrap().clone();
    assert_eq!(outside, [format!("00-{trace}-{}-01", hex(&effect.span_id))]);
    // What its caller does not want recorded is passed on and not recorded.
    let other = "1bf7651916cd43dd8448eb211c80319c";
    let request = http.request("POST", "/v1/workflows/calling/runs").header("content-type", "application/json");
    let request =
        request.header("traceparent", format!("00-{other}-{caller}-00")).body(r#"{"run_id":"c2","input":{}}"#);
    let response = request.send().await.unwrap();
    assert!(response.headers()["traceresponse"].to_str().unwrap().starts_with(&format!("00-{other}-")));
    http.run_in("c2", &["completed"]).await;
    assert_eq!(stack.run(&["down"]).code, 0);
    let spans = collector.spans.lock().unwrap();
    assert!(spans.iter().all(|span| span.trace_id != bytes(other)), "an unwanted trace was recorded");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_nothing_but_one_line() {
    for hangs_up in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&tries);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                if !hangs_up {
                    held.push(socket);
                }
            }
        });
        let stack = Stack::stopped();
        up(&stack, &url);
        let http = stack.http();
        let wanted_tries = if hangs_up { 4 } else { 1 };
        let mut n = 0;
        eventually("it has tried", async || {
            n += 1;
            http.define(&format!("w{n}"), json!([{ "id": "end", "kind": "pass" }])).await;
            n >= 20 && tries.load(Ordering::SeqCst) >= wanted_tries
        })
        .await;
        assert_eq!(stack.run(&["down"]).code, 0);
        let log = std::fs::read_to_string(stack.data_dir().join("log/airstream.log")).unwrap();
        let lines = log.lines().filter(|line| line.contains("collector of traces")).count();
        assert!(lines <= 1 && (lines == 1 || !hangs_up), "{lines} lines:\n{log}");
    }
}
