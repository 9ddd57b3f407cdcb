//! `/v1/events`: the tenant's part of the log, as a live stream or page by page. It is read from the log itself, so it
//! is never behind.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::{Stream, StreamExt};
use kernel::{Category, Cursor, EventId, Position, Problem, StreamId};
use projections::{Database, commits};
use rest::{Caller, Fault, Page, PageQuery, Query, Segment, documents};
use runtime::{Filter, Log, LogError, Recorded};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::pass::Pass;

#[derive(Clone)]
struct Routes {
    log: Arc<dyn Log>,
    database: Database,
    stop: CancellationToken,
}

pub(crate) fn router(log: Arc<dyn Log>, database: Database, stop: CancellationToken) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(read)).routes(routes!(show)).with_state(Routes { log, database, stop })
}

#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Begin after this position or event cursor; the beginning of the log when absent (a live stream: now).
    from: Option<String>,
    /// Begin so many events before the newest one, at most 10,000.
    last: Option<u32>,
    /// Only these event types, comma-separated.
    #[serde(rename = "type")]
    types: Option<String>,
    /// Only of this category.
    category: Option<String>,
    /// Only of this stream; needs `category`.
    stream: Option<String>,
    /// Items per page: 1 to 500.
    limit: Option<usize>,
    /// `next_cursor` of the page before; the same as `from`.
    cursor: Option<String>,
}

/// An event with its place.
#[derive(Debug, Serialize, ToSchema)]
struct Placed {
    /// Hand it back as `from`, `cursor` or `Last-Event-ID` to go on after it.
    #[schema(example = "p1-2a.0")]
    cursor: String,
    /// A CloudEvent (1.0, JSON format).
    #[schema(value_type = Object, example = json!({"specversion": "1.0", "id": "order-42.0", "source": "/acme/run", "type": "run.started", "subject": "run_5", "time": "2026-01-31T12:00:00Z", "data": {"workflow": "wf_12345"}}))]
    event: Box<RawValue>,
    #[serde(skip)]
    type_name: String,
}

/// A commit's events; a message that cannot be read, or that no writer wrote, is shown as it is, with a type of its own:
/// nobody is kept in the dark.
fn placed(recorded: &Recorded) -> Vec<Placed> {
    let cursor = |index: usize| Cursor { position: recorded.position, index: index as u32 }.to_string();
    let raw = serde_json::from_slice::<Vec<Box<RawValue>>>(&recorded.payload);
    match (recorded.history(), raw) {
        (Ok(Some((_, commit))), Ok(raw)) => raw
            .into_iter()
            .zip(&commit.events)
            .enumerate()
            .map(|(index, (event, envelope))| Placed {
                cursor: cursor(index),
                event,
                type_name: envelope.type_name.to_string(),
            })
            .collect(),
        _ => {
            let text = String::from_utf8_lossy(&recorded.payload).chars().take(2_000).collect::<String>();
            let event = serde_json::json!({ "type": "unreadable", "subject": recorded.subject, "data": text });
            let event = serde_json::value::to_raw_value(&event).unwrap_or_default();
            vec![Placed { cursor: cursor(0), event, type_name: "unreadable".into() }]
        }
    }
}

/// Most events that `last` may go back.
const MOST_NEWEST: u32 = 10_000;

struct Plan {
    after: Cursor,
    filter: Filter,
    types: Vec<String>,
}

impl Plan {
    fn admits(&self, placed: &Placed) -> bool {
        let types = self.types.is_empty() || self.types.contains(&placed.type_name);
        types && placed.cursor.parse::<Cursor>().is_ok_and(|cursor| cursor > self.after)
    }

    /// Where the log has to be read from: a cursor inside a commit means reading that commit again.
    fn read_after(&self) -> Position {
        match self.after.index {
            u32::MAX => self.after.position,
            _ => Position::at(self.after.position.sequence().saturating_sub(1)),
        }
    }
}

impl Routes {
    async fn plan(&self, caller: &Caller, wanted: &Wanted, resume: Option<&str>, live: bool) -> Result<Plan, Fault> {
        let text = resume.or(wanted.cursor.as_deref()).or(wanted.from.as_deref());
        let after = match (text, wanted.last) {
            (Some(text), _) => text.parse()?,
            (None, Some(last)) => return self.newest(caller, wanted, last.clamp(1, MOST_NEWEST)).await,
            (None, None) if live => Cursor { position: self.head().await?, index: u32::MAX },
            (None, None) => Cursor { position: Position::START, index: u32::MAX },
        };
        self.filtered(caller, wanted, after)
    }

    /// A plan that begins so many events before the newest.
    async fn newest(&self, caller: &Caller, wanted: &Wanted, last: u32) -> Result<Plan, Fault> {
        // A commit has at least one event, so that many commits have enough of them.
        let offset = i64::from(last) - 1;
        let found = commits::nth_newest(self.database.pool(), &caller.tenant, offset).await?;
        let before = found.map_or(0, |position| position.sequence().saturating_sub(1));
        let mut plan = self.filtered(caller, wanted, Cursor { position: Position::at(before), index: u32::MAX })?;
        // Begin after the one before the first that is wanted: of all cursors, the last few are enough to know it.
        let mut cursors = VecDeque::new();
        let reader = self.log.read(plan.read_after(), &plan.filter).await.map_err(unreadable)?;
        let (mut left, mut commits) = (reader.waiting, reader.commits);
        while left > 0 {
            let next = tokio::time::timeout(Duration::from_secs(10), commits.next()).await;
            let Ok(Some(recorded)) = next else { return Err(Problem::unavailable("The log is slow.", 1_000).into()) };
            let recorded = recorded.map_err(unreadable)?;
            left = recorded.remaining;
            for placed in placed(&recorded).into_iter().filter(|placed| plan.admits(placed)) {
                cursors.push_back(placed.cursor);
                if cursors.len() > last as usize + 1 {
                    cursors.pop_front();
                }
            }
        }
        if cursors.len() > last as usize
            && let Some(seen) = cursors.front()
        {
            plan.after = seen.parse()?;
        }
        Ok(plan)
    }

    fn filtered(&self, caller: &Caller, wanted: &Wanted, after: Cursor) -> Result<Plan, Fault> {
        if wanted.stream.is_some() && wanted.category.is_none() {
            return Err(Problem::new(400, "invalid_query", "`stream` needs `category` beside it.").into());
        }
        let filter = Filter {
            tenant: Some(caller.tenant.clone()),
            category: wanted.category.as_deref().map(Category::new).transpose()?,
            id: wanted.stream.as_deref().map(StreamId::new).transpose()?,
        };
        let types = wanted.types.iter().flat_map(|types| types.split(',')).map(|name| name.trim().to_owned());
        Ok(Plan { after, filter, types: types.filter(|name| !name.is_empty()).collect() })
    }

    async fn head(&self) -> Result<Position, Fault> {
        self.log.head().await.map_err(unreadable)
    }
}

fn unreadable(error: LogError) -> Fault {
    tracing::warn!(%error, "the log could not be read");
    Problem::unavailable("The log cannot be read right now.", 1_000).into()
}

/// Reads events. With `Accept: text/event-stream` it goes on as long as the token lasts and resumes after `Last-Event-ID`;
/// otherwise it answers with a page.
#[utoipa::path(get, path = "/v1/events", tag = "events", security(("token" = ["events:read"])), params(Wanted),
    responses((status = 200, body = Page<Placed>), (status = "4XX", body = documents::Problem)))]
async fn read(
    State(routes): State<Routes>,
    caller: Caller,
    Extension(pass): Extension<Pass>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
    let live = text(header::ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/event-stream"));
    let plan = routes.plan(&caller, &wanted, text("last-event-id"), live).await?;
    if live {
        return Ok(tail(routes, plan, pass).await?.into_response());
    }
    let limit = PageQuery { limit: wanted.limit, cursor: None }.limit()?;
    // A read breaks off when the server dies that it goes through. Begun again, it goes through another one.
    let mut tries = 0;
    loop {
        tries += 1;
        match page(&routes, &plan, limit).await {
            Err(_) if tries < 3 => {}
            page => return Ok(Json(page?).into_response()),
        }
    }
}

async fn page(routes: &Routes, plan: &Plan, limit: usize) -> Result<Page<Placed>, Fault> {
    let reader = routes.log.read(plan.read_after(), &plan.filter).await.map_err(unreadable)?;
    let (mut items, mut left, mut commits) = (Vec::new(), reader.waiting, reader.commits);
    while left > 0 && items.len() <= limit {
        let next = tokio::time::timeout(Duration::from_secs(10), commits.next()).await;
        let Ok(Some(recorded)) = next else { return Err(Problem::unavailable("The log is slow.", 1_000).into()) };
        let recorded = recorded.map_err(unreadable)?;
        left = recorded.remaining;
        items.extend(placed(&recorded).into_iter().filter(|placed| plan.admits(placed)));
    }
    Ok(Page::of(items, limit, |placed| placed.cursor.clone()))
}

async fn tail(
    routes: Routes,
    plan: Plan,
    pass: Pass,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Fault> {
    let reader = routes.log.read(plan.read_after(), &plan.filter).await.map_err(unreadable)?;
    let stop = routes.stop.clone();
    // Sent first, without data: who loses the connection before the first event knows where to go on.
    let place = Event::default().id(plan.after.to_string());
    let place = futures::stream::once(std::future::ready(Ok(place)));
    // An error ends the response; the client comes back with the last id it has seen.
    let events = reader
        .commits
        .take_while(|recorded| std::future::ready(recorded.is_ok()))
        .flat_map(move |recorded| {
            let placed = recorded.map(|recorded| placed(&recorded)).unwrap_or_default();
            futures::stream::iter(placed.into_iter().filter(|placed| plan.admits(placed)).collect::<Vec<_>>())
        })
        .map(|placed| Ok(Event::default().id(placed.cursor).event(placed.type_name).data(placed.event.get())));
    let events = events.take_until(async move { stop.run_until_cancelled(pass.over()).await });
    Ok(Sse::new(place.chain(events)).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

/// Shows the events at a position, of a cursor, or with an event id.
#[utoipa::path(get, path = "/v1/events/{id}", tag = "events", security(("token" = ["events:read"])), params(("id" = String, Path)),
    responses((status = 200, body = Page<Placed>), (status = 404, body = documents::Problem)))]
async fn show(State(routes): State<Routes>, caller: Caller, Segment(id): Segment) -> Result<Json<Page<Placed>>, Fault> {
    let missing = || Problem::not_found(format!("There is no event `{id}` (or it is not visible yet)."));
    let mut items = Vec::new();
    let (positions, index) = match id.parse::<Cursor>() {
        Ok(cursor) => (vec![cursor.position], Some(cursor.index).filter(|index| *index != u32::MAX)),
        Err(_) => {
            let event: EventId = id.parse().map_err(|_| missing())?;
            let rows = commits::by_id(routes.database.pool(), &caller.tenant, event.commit.as_str()).await?;
            (rows.into_iter().map(|row| row.position).collect(), Some(event.index))
        }
    };
    for position in positions {
        let Some(recorded) = routes.log.at(position).await.map_err(unreadable)? else { continue };
        // A position is easy to guess; what stands there is only for its tenant.
        if recorded.stream.as_ref().is_some_and(|stream| stream.tenant == caller.tenant) {
            let events = placed(&recorded).into_iter().enumerate();
            items.extend(
                events.filter(|(n, _)| index.is_none_or(|index| index as usize == *n)).map(|(_, placed)| placed),
            );
        }
    }
    if items.is_empty() {
        return Err(missing().into());
    }
    Ok(Json(Page { items, next_cursor: None }))
}
