//! Carries out plans: the only place, with [`crate::recorder`], that writes to the API server.

use crate::cache::{Key, revision_of};
use crate::caches::Caches;
use crate::plan::{
    Append, Deletion, Failure, Guard, KindRef, Note, Pace, PatchKind, Plan, Step, Verb, Write,
};
use crate::recorder::Recorder;
use futures::{StreamExt, stream};
use http::{Method, Request};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// What a write left to be seen in the caches.
#[derive(Debug)]
pub enum Receipt {
    /// This revision of the kind.
    Revision(KindRef, u64),
    /// This object going away.
    Going(KindRef, Key, String),
}

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Of the writes that were made.
    pub receipts: Vec<Receipt>,
    /// The first write that failed, if any.
    pub failure: Option<Failure>,
}

/// Makes writes through a client.
#[derive(Clone)]
pub struct Applier {
    client: Client,
    caches: Arc<Caches>,
    recorder: Recorder,
    in_flight: usize,
}

/// The part of an answer that matters here.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ObjectMeta,
}

impl Applier {
    /// An applier that reports events as `recorder` and makes at most `in_flight` writes at once per plan.
    pub fn new(client: Client, caches: Arc<Caches>, recorder: Recorder, in_flight: usize) -> Self {
        Self { client, caches, recorder, in_flight: in_flight.max(1) }
    }

    /// Makes the writes of the plan, step by step, until one fails.
    pub async fn apply(&self, plan: Plan) -> Outcome {
        plan.notes.iter().for_each(|note| self.recorder.record(note, &note.message));
        let mut outcome = Outcome::default();
        for step in plan.steps {
            self.apply_step(step, &mut outcome).await;
            if outcome.failure.is_some() {
                break;
            }
        }
        outcome
    }

    /// Waits until the caches show what was written.
    pub async fn seen(&self, receipts: Vec<Receipt>) {
        for receipt in receipts {
            match receipt {
                Receipt::Revision(kind, revision) => {
                    if let Some(cache) = self.caches.of(kind.group, kind.plural) {
                        cache.saw(revision).await;
                    }
                }
                Receipt::Going(kind, key, uid) => {
                    if let Some(cache) = self.caches.of(kind.group, kind.plural) {
                        cache.saw_going(&key, &uid).await;
                    }
                }
            }
        }
    }

    async fn apply_step(&self, step: Step, outcome: &mut Outcome) {
        if let Some(guard) = &step.guard
            && let Err(failure) = self.check(guard).await
        {
            outcome.failure = Some(failure);
            return;
        }
        let mut writes = step.writes.into_iter();
        let mut batch = match step.pace {
            Pace::Together => usize::MAX,
            Pace::SlowStart => 1,
        };
        while writes.len() > 0 && outcome.failure.is_none() {
            // Tasks of their own, as the API server may be in this process and its work is worth a second core.
            let made = stream::iter(writes.by_ref().take(batch)).map(|write| {
                let this = self.clone();
                async move { tokio::spawn(async move { this.write(write).await }).await }
            });
            let mut made = made.buffer_unordered(self.in_flight);
            while let Some(result) = made.next().await {
                match result {
                    Ok(Ok(receipt)) => outcome.receipts.extend(receipt),
                    Ok(Err(failure)) => outcome.failure = outcome.failure.take().or(Some(failure)),
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // The runtime is shutting down.
                        Err(_) => return,
                    },
                }
            }
            batch = batch.saturating_mul(2);
        }
    }

    async fn check(&self, guard: &Guard) -> Result<(), Failure> {
        let path = path(&guard.kind, &guard.key, None);
        let refuse = |code, reason: &str, message| Failure {
            verb: "get",
            kind: guard.kind,
            key: guard.key.clone(),
            code,
            reason: reason.to_owned(),
            message,
        };
        let answer: Answer = match request(Method::GET, path, "", Vec::new()) {
            Ok(request) => self.client.request(request).await.map_err(|error| {
                let (code, reason, message) = describe(&error);
                refuse(code, &reason, message)
            })?,
            Err(error) => return Err(refuse(0, "", error.to_string())),
        };
        let name = format!("{} {}", guard.kind.kind, guard.key);
        if answer.metadata.uid.as_deref() != Some(&guard.uid) {
            return Err(refuse(409, "Conflict", format!("{name} has been replaced by another of that name")));
        }
        match answer.metadata.deletion_timestamp {
            Some(when) => Err(refuse(409, "Conflict", format!("{name} has just been deleted at {}", when.0))),
            None => Ok(()),
        }
    }

    async fn write(&self, write: Write) -> Result<Option<Receipt>, Failure> {
        let Write { kind, key, verb, tolerated, on_success, on_failure } = write;
        let name = verb.name();
        let going = match &verb {
            Verb::Delete(deletion) => Some(deletion.uid.clone()),
            _ => None,
        };
        let creates = matches!(verb, Verb::Create(_));
        tracing::debug!(verb = name, kind = kind.plural, %key, "write");
        let error = match self.send(&kind, &key, verb).await {
            Ok(answer) => {
                self.report(on_success, answer.metadata.name.as_deref().unwrap_or(&key.name), "");
                return Ok(self.receipt(kind, key, going, &answer));
            }
            Err(Sending::Request(error)) => (0, String::new(), error.to_string()),
            Err(Sending::Client(error)) => {
                if creates && is_namespace_terminating(&error) {
                    // Nothing can be created there any more, and what is there is about to go: no failure.
                    return Ok(None);
                }
                describe(&error)
            }
        };
        let (code, reason, message) = error;
        if tolerated.contains(&code) {
            return Ok(going.flatten().map(|uid| Receipt::Going(kind, key, uid)));
        }
        let failure = Failure { verb: name, kind, key, code, reason, message };
        // That an object changed meanwhile is nothing to report: it is looked at again.
        if !failure.is_conflict() {
            self.report(on_failure, &failure.key.name, &failure.message);
        }
        Err(failure)
    }

    async fn send(&self, kind: &KindRef, key: &Key, verb: Verb) -> Result<Answer, Sending> {
        let status = Some("status");
        let request = match verb {
            Verb::Create(object) => {
                let collection = Key::new(key.namespace.clone(), "");
                request(Method::POST, path(kind, &collection, None), JSON, object.encode())
            }
            Verb::Update(object) => request(Method::PUT, path(kind, key, None), JSON, object.encode()),
            Verb::UpdateStatus(object) => {
                request(Method::PUT, path(kind, key, status), JSON, object.encode())
            }
            Verb::Patch(how, body) => {
                request(Method::PATCH, path(kind, key, None), media_type(how), body.to_string().into_bytes())
            }
            Verb::PatchStatus(how, body) => request(
                Method::PATCH,
                path(kind, key, status),
                media_type(how),
                body.to_string().into_bytes(),
            ),
            Verb::Delete(deletion) => request(Method::DELETE, path(kind, key, None), JSON, options(deletion)),
        };
        let request = request.map_err(Sending::Request)?;
        self.client.request(request).await.map_err(Sending::Client)
    }

    fn receipt(
        &self,
        kind: KindRef,
        key: Key,
        going: Option<Option<String>>,
        answer: &Answer,
    ) -> Option<Receipt> {
        let cache = self.caches.of(kind.group, kind.plural)?;
        let is_object = answer.kind != "Status";
        let revision = if is_object { revision_of(&answer.metadata) } else { 0 };
        cache.note_write(revision);
        match going {
            None => Some(Receipt::Revision(kind, revision)),
            // Without a uid there is nothing to recognise the deleted object by.
            Some(uid) => uid.map(|uid| Receipt::Going(kind, key, uid)),
        }
    }

    fn report(&self, note: Option<Note>, name: &str, error: &str) {
        let Some(note) = note else { return };
        let appended = match note.append {
            Append::Nothing => "",
            Append::Name => name,
            Append::Error => error,
        };
        self.recorder.record(&note, &format!("{}{appended}", note.message));
    }
}

/// Why a write was not answered with success.
enum Sending {
    Request(http::Error),
    Client(kube::Error),
}

const JSON: &str = "application/json";

fn media_type(kind: PatchKind) -> &'static str {
    match kind {
        PatchKind::Json => "application/json-patch+json",
        PatchKind::Merge => "application/merge-patch+json",
        PatchKind::Strategic => "application/strategic-merge-patch+json",
    }
}

/// `/apis/apps/v1/namespaces/default/deployments/kubia/status`.
pub(crate) fn path(kind: &KindRef, key: &Key, subresource: Option<&str>) -> String {
    let mut path = format!("/{}/{}", if kind.group.is_empty() { "api" } else { "apis" }, kind.api_version);
    if !key.namespace.is_empty() {
        path += &format!("/namespaces/{}", key.namespace);
    }
    path += &format!("/{}", kind.plural);
    if !key.name.is_empty() {
        path += &format!("/{}", key.name);
    }
    if let Some(subresource) = subresource {
        path += &format!("/{subresource}");
    }
    path
}

fn request(
    method: Method,
    path: String,
    media_type: &str,
    body: Vec<u8>,
) -> Result<Request<Vec<u8>>, http::Error> {
    let mut request = Request::builder().method(method).uri(path);
    if !media_type.is_empty() {
        request = request.header(http::header::CONTENT_TYPE, media_type);
    }
    request.body(body)
}

fn options(deletion: Deletion) -> Vec<u8> {
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
    if deletion.uid.is_some() || deletion.resource_version.is_some() {
        let mut preconditions = json!({});
        if let Some(uid) = deletion.uid {
            preconditions["uid"] = uid.into();
        }
        if let Some(version) = deletion.resource_version {
            preconditions["resourceVersion"] = version.into();
        }
        options["preconditions"] = preconditions;
    }
    if let Some(propagation) = deletion.propagation {
        options["propagationPolicy"] = propagation.into();
    }
    if let Some(seconds) = deletion.grace_period {
        options["gracePeriodSeconds"] = seconds.into();
    }
    options.to_string().into_bytes()
}

fn describe(error: &kube::Error) -> (u16, String, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone(), status.message.clone()),
        other => (0, String::new(), other.to_string()),
    }
}

fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Node, Pod};
    use rstest::rstest;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[rstest]
    #[case(KindRef::of::<Pod>(), "default", "a", None, "/api/v1/namespaces/default/pods/a")]
    #[case(KindRef::of::<Pod>(), "default", "", None, "/api/v1/namespaces/default/pods")]
    #[case(KindRef::of::<Node>(), "", "n", Some("status"), "/api/v1/nodes/n/status")]
    #[case(KindRef::of::<Deployment>(), "x", "d", None, "/apis/apps/v1/namespaces/x/deployments/d")]
    fn a_path_names_group_namespace_and_subresource(
        #[case] kind: KindRef,
        #[case] namespace: &str,
        #[case] name: &str,
        #[case] subresource: Option<&str>,
        #[case] expected: &str,
    ) {
        assert_eq!(path(&kind, &Key::new(namespace, name), subresource), expected);
    }

    /// An API server that refuses the request with this number, counting from one.
    fn refusing(number: usize, requests: Arc<AtomicUsize>) -> Client {
        let service = tower::service_fn(move |_: Request<kube::client::Body>| {
            let refused = requests.fetch_add(1, Ordering::SeqCst) + 1 == number;
            let (code, body) = match refused {
                true => (
                    403,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403,
                        "reason": "Forbidden", "message": "exceeded quota"}),
                ),
                false => (201, json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}})),
            };
            let body = kube::client::Body::from(body.to_string().into_bytes());
            let response = http::Response::builder().status(code).body(body);
            std::future::ready(response)
        });
        Client::new(service, "default")
    }

    #[rstest]
    #[case::the_first(1, 1)]
    #[case::one_of_the_third_batch(5, 7)]
    #[case::none(0, 20)]
    #[tokio::test]
    async fn a_slow_start_makes_one_two_four_writes_and_stops_after_a_batch_that_fails(
        #[case] failing: usize,
        #[case] expected: usize,
    ) {
        let requests = Arc::new(AtomicUsize::new(0));
        let client = refusing(failing, requests.clone());
        let (tasks, shutdown) = Default::default();
        let recorder = Recorder::start(client.clone(), "test", jiff::Timestamp::now, &tasks, &shutdown);
        let applier = Applier::new(client, Arc::default(), recorder, 64);
        let creates = (0..20).map(|_| Write::create(Pod::default())).collect();
        let plan = Plan { steps: vec![Step::slow_start(creates)], ..Plan::default() };
        let outcome = applier.apply(plan).await;
        assert_eq!(outcome.failure.is_some(), failing > 0);
        assert_eq!(requests.load(Ordering::SeqCst), expected);
        assert_eq!(outcome.receipts.len(), expected - usize::from(failing > 0));
    }

    #[test]
    fn deletion_options_carry_only_what_is_set() {
        let options = options(Deletion { uid: Some("u".into()), ..Deletion::default() });
        let expected = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "u"}});
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&options).unwrap(), expected);
    }
}
