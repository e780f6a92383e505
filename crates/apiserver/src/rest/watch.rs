//! GET of a collection with `watch=true`: a stream of events, one JSON object a line.

use crate::body::{Body, BoxError, streaming};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::negotiate::{self, Encoding, Shape};
use crate::resources::Resource;
use crate::rest::get::parse_version;
use crate::rest::selection::Selection;
use crate::state::Core;
use crate::table::{self, Include};
use crate::wire::{self, Stored};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use jiff::Timestamp;
use rand::Rng;
use sagong_api::error::ApiError;
use sagong_api::field;
use sagong_store::{Batch, Entry, Event, Revision, Watch};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// How often a bookmark is sent to those who allow them (upstream: about a minute).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// The shortest time a watch lasts when the client names none; up to twice as long (`--min-request-timeout`).
const MIN_TIMEOUT: u64 = 1800;
/// About the most bytes of events in one piece of the body.
const PIECE: usize = 64 << 10;
/// About what an event has besides its object.
const EVENT_FRAME: usize = 96;
/// The annotation of the bookmark that ends the initial events (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What the client asked for.
struct Request {
    from: Option<Revision>,
    bookmarks: bool,
    /// End the initial events with a bookmark.
    mark_initial: bool,
    /// Whether the initial events are asked for in place of a list.
    lists: bool,
    timeout: Duration,
    selection: Selection,
}

impl Request {
    fn parse(context: &Context) -> Outcome<Self> {
        let query = &context.query;
        let version = parse_version(query.get("resourceVersion"))?;
        let bookmarks = query.flag("allowWatchBookmarks");
        let send_initial = query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
        check_initial_events(context, send_initial)?;
        // Unset and 0 both mean: begin with what there is. With sendInitialEvents the version only says how
        // fresh the state must be, and ours always is.
        let from = match (send_initial, version) {
            (Some(true), _) | (None, None | Some(0)) => None,
            (Some(false), None | Some(0)) => Some(context.core.store.revision()),
            (_, Some(version)) => Some(version),
        };
        Ok(Self {
            from,
            bookmarks,
            mark_initial: send_initial == Some(true) && bookmarks,
            lists: send_initial == Some(true),
            timeout: timeout(context.number("timeoutSeconds")?),
            selection: match &context.name {
                Some(name) => Selection::of_one(query, &context.resource, name)?,
                None => Selection::parse(query, &context.resource)?,
            },
        })
    }
}

/// How long a watch lasts whose client asks for `seconds`.
pub(crate) fn timeout(seconds: Option<i64>) -> Duration {
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    Duration::from_secs(seconds.unwrap_or_else(|| rand::rng().random_range(MIN_TIMEOUT..2 * MIN_TIMEOUT)))
}

fn check_initial_events(context: &Context, send_initial: Option<bool>) -> Outcome<()> {
    let forbid = |field: &str, detail: &str| -> Failure {
        let errors = vec![field::forbidden(&field::Path::new(field), detail)];
        ApiError::Invalid { kind: "ListOptions.meta.k8s.io".into(), name: String::new(), errors }.into()
    };
    match (send_initial, context.query.get("resourceVersionMatch")) {
        (Some(_), Some("NotOlderThan")) | (None, None) => Ok(()),
        (Some(_), _) => Err(forbid(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
        (None, Some(_)) => Err(forbid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )),
    }
}

/// Answers with the events of the collection. What goes wrong after the head was sent is an `ERROR` event.
pub(crate) async fn watch(context: &Context) -> Outcome<Response<Body>> {
    let request = Request::parse(context)?;
    // A list in the form of a watch is not had as a table, as upstream: clients then list as ever.
    let is_served = |shape| !(request.lists && matches!(shape, Shape::Table(_)));
    let wanted = negotiate::negotiate_among(&context.headers, is_served)?;
    if wanted.encoding != Encoding::Json {
        return Err(ApiError::NotAcceptable("application/json;stream=watch".into()).into());
    }
    let formatter = Formatter {
        resource: context.resource.clone(),
        selection: request.selection.clone(),
        shape: wanted.shape,
        include: context.include()?,
        headed: false,
    };
    let stream = match open(context, &request, formatter).await {
        Ok(stream) => stream,
        Err(failure) if failure.code() == 410 => {
            return Ok(respond(futures::stream::iter([Ok(error_event(&failure))])));
        }
        Err(failure) => return Err(failure),
    };
    Ok(respond(futures::stream::unfold(stream, |mut stream| async move {
        let piece = stream.next().await?;
        Some((Ok::<_, BoxError>(piece), stream))
    })))
}

/// The response whose body are these pieces, of whole events each.
pub(crate) fn respond(
    pieces: impl futures::Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
) -> Response<Body> {
    let mut response = Response::new(streaming(pieces));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json;stream=watch"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Subscribes, and lists first when the client begins with the present state.
async fn open(context: &Context, request: &Request, formatter: Formatter) -> Outcome<Stream> {
    let core = context.core.clone();
    let prefix = request.selection.prefix(&context.resource, context.namespace.as_deref());
    let (initial, from) = match request.from {
        Some(from) => {
            let current = core.store.revision();
            if from > current {
                return Err(Failure::future_version(from, current));
            }
            (Vec::new(), from)
        }
        None => {
            let page = core.store.list(&prefix, None, 0).await?;
            (page.entries, page.revision)
        }
    };
    let watch = core.store.watch(&prefix, from)?;
    let mut bookmark_tick = tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY);
    bookmark_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Stream {
        core,
        watch,
        formatter,
        bookmarks: request.bookmarks,
        told: from,
        initial: initial.into_iter(),
        mark_initial: request.mark_initial,
        pending: Vec::new().into_iter(),
        bookmark_tick,
        deadline: Instant::now() + request.timeout,
        ended: false,
    })
}

/// A watch in progress.
struct Stream {
    core: Arc<Core>,
    watch: Watch,
    formatter: Formatter,
    bookmarks: bool,
    /// The newest revision the client was told of.
    told: Revision,
    /// What there was at the beginning and is still to be sent.
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// The initial events are still to be ended with a bookmark.
    mark_initial: bool,
    /// Events at hand that are still to be sent.
    pending: std::vec::IntoIter<Event>,
    bookmark_tick: tokio::time::Interval,
    deadline: Instant,
    ended: bool,
}

impl Stream {
    /// The next piece of the body; None ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(piece) = self.next_initial() {
            return Some(piece);
        }
        while !self.ended || self.pending.len() > 0 {
            let mut out = Vec::new();
            if self.pending.len() > 0 {
                self.send_pending(&mut out);
                if !out.is_empty() {
                    return Some(out.into());
                }
                continue;
            }
            tokio::select! {
                batch = self.watch.next() => self.take(batch, &mut out),
                _ = self.bookmark_tick.tick(), if self.bookmarks => self.bookmark(&mut out),
                () = tokio::time::sleep_until(self.deadline) => {
                    self.ended = true;
                    if self.bookmarks {
                        self.bookmark(&mut out);
                    }
                }
                () = self.core.stopping.cancelled() => self.ended = true,
            }
            if !out.is_empty() {
                return Some(out.into());
            }
        }
        None
    }

    /// The next piece of the present state. All of it at once would be 20 MB of 10,000 pods, for each watch.
    fn next_initial(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        for entry in self.initial.by_ref() {
            if self.formatter.selection.matches(&self.formatter.resource, &entry) {
                self.formatter.event(&mut out, "ADDED", &Stored::from(&entry));
            }
            if out.len() >= PIECE {
                return Some(out.into());
            }
        }
        if std::mem::take(&mut self.mark_initial) {
            self.formatter.bookmark(&mut out, self.told, true);
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// Writes events up to about the size of a piece. A thousand in one piece would be megabytes, for each watch,
    /// asked of the system anew each time.
    fn send_pending(&mut self, out: &mut Vec<u8>) {
        let mut size = 0;
        let fits = |event: &&Event| {
            let before = size;
            size += event.entry().size() + EVENT_FRAME;
            before == 0 || size <= PIECE
        };
        let count = self.pending.as_slice().iter().take_while(fits).count();
        out.reserve(size.min(PIECE));
        for event in self.pending.by_ref().take(count) {
            self.told = self.told.max(self.formatter.change(out, &event));
        }
    }

    fn take(&mut self, batch: Batch, out: &mut Vec<u8>) {
        match batch {
            Batch::Events(events) => self.pending = events.into_iter(),
            Batch::Lost => {
                self.ended = true;
                let message = format!("too old resource version: {}", self.told);
                out.extend_from_slice(&error_event(&ApiError::Expired(message).into()));
            }
            Batch::Closed => self.ended = true,
        }
    }

    fn bookmark(&mut self, out: &mut Vec<u8>) {
        let progress = self.watch.progress();
        if progress > self.told {
            self.told = progress;
            self.formatter.bookmark(out, progress, false);
        }
    }
}

/// Writes events as the client wants them.
struct Formatter {
    resource: Arc<Resource>,
    selection: Selection,
    shape: Shape,
    include: Include,
    /// Whether a table event has already carried the column definitions.
    headed: bool,
}

impl Formatter {
    /// A change of the store as the client sees it: an object that begins to be selected is added, one that
    /// ceases to be is deleted. Gives the revision of the change.
    fn change(&mut self, out: &mut Vec<u8>, event: &Event) -> Revision {
        let selected = |entry: &Arc<Entry>| self.selection.matches(&self.resource, entry);
        match event {
            Event::Put { entry, previous } => {
                let was = previous.as_ref().filter(|p| selected(p));
                let shown = match (was, selected(entry)) {
                    (Some(_), true) => Some(("MODIFIED", Stored::from(entry))),
                    (None, true) => Some(("ADDED", Stored::from(entry))),
                    (Some(was), false) => {
                        Some(("DELETED", Stored { bytes: was.value(), revision: entry.modified }))
                    }
                    (None, false) => None,
                };
                if let Some((type_, stored)) = shown {
                    self.event(out, type_, &stored);
                }
                entry.modified
            }
            Event::Delete { entry } => {
                if selected(entry) {
                    self.event(out, "DELETED", &Stored::from(entry));
                }
                entry.modified
            }
        }
    }

    fn event(&mut self, out: &mut Vec<u8>, type_: &str, stored: &Stored) {
        let start = out.len();
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(type_.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        let written = match self.shape {
            Shape::Object => {
                wire::splice(out, &stored.bytes, stored.revision);
                Ok(())
            }
            Shape::PartialMetadata(version) => self.resource.decode_stored(stored).map(|object| {
                out.extend_from_slice(&table::partial(object.metadata(), stored, version));
            }),
            Shape::Table(version) => {
                table::row(&self.resource, stored, self.include, version, Timestamp::now()).map(|row| {
                    let table = self.one_row_table(version, stored.revision, vec![row]);
                    out.extend_from_slice(&table);
                })
            }
        };
        match written {
            Ok(()) => out.extend_from_slice(b"}\n"),
            Err(error) => {
                out.truncate(start);
                out.extend_from_slice(&error_event(&error.into()));
            }
        }
    }

    fn one_row_table(&mut self, version: &str, revision: Revision, rows: Vec<Vec<u8>>) -> Vec<u8> {
        let definitions = if self.headed { json!(null) } else { table::definitions(&self.resource) };
        self.headed = true;
        table::table(version, &json!({"resourceVersion": revision.to_string()}), &definitions, &rows)
    }

    fn bookmark(&mut self, out: &mut Vec<u8>, revision: Revision, ends_initial: bool) {
        let metadata = bookmark_metadata(revision, ends_initial);
        let object = match self.shape {
            Shape::Object => json!({
                "kind": self.resource.id.kind, "apiVersion": self.resource.api_version, "metadata": metadata
            }),
            Shape::PartialMetadata(version) => json!({
                "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata
            }),
            Shape::Table(version) => {
                let row = json!({"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata
                }});
                json!({
                    "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
                    "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": null, "rows": [row]
                })
            }
        };
        out.extend_from_slice(json!({"type": "BOOKMARK", "object": object}).to_string().as_bytes());
        out.push(b'\n');
    }
}

/// The metadata of a bookmark's object.
pub(crate) fn bookmark_metadata(revision: Revision, ends_initial: bool) -> serde_json::Value {
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if ends_initial {
        metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
    }
    metadata
}

fn error_event(failure: &Failure) -> Bytes {
    format!("{}\n", json!({"type": "ERROR", "object": failure.0})).into()
}
