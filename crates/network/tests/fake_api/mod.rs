//! An API server of two kinds, in memory: lists, watches, merge-patches statuses, notes events.
// Shared by targets that use different parts of it; a poisoned fake is a failed test anyway.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)]

use bytes::Bytes;
use futures::StreamExt;
use futures::channel::mpsc;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// Objects, watchers and what was written.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    revision: u64,
    objects: Vec<Value>,
    watchers: Vec<(&'static str, mpsc::UnboundedSender<Value>)>,
    /// Everything that was told, and when.
    told: Vec<(u64, Value)>,
    events: Vec<(String, String)>,
}

impl FakeApi {
    /// A client of this API.
    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Creates or replaces an object.
    pub fn put(&self, mut object: Value) {
        let mut state = self.0.lock().unwrap();
        // An empty list has revision 1.
        state.revision = state.revision.max(1) + 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let same = |other: &Value| other["kind"] == object["kind"] && name(other) == name(&object);
        let event = match state.objects.iter().position(same) {
            Some(index) => {
                state.objects[index] = object.clone();
                "MODIFIED"
            }
            None => {
                state.objects.push(object.clone());
                "ADDED"
            }
        };
        state.tell(event, &object);
    }

    /// The ingress addresses in a service's status.
    pub fn ingress(&self, service: &str) -> Value {
        let state = self.0.lock().unwrap();
        let found =
            state.objects.iter().find(|object| object["kind"] == "Service" && name(object) == service);
        found.map(|object| object["status"]["loadBalancer"]["ingress"].clone()).unwrap_or_default()
    }

    /// Deletes an object.
    pub fn delete(&self, kind: &'static str, wanted: &str) {
        let mut state = self.0.lock().unwrap();
        let position =
            state.objects.iter().position(|object| object["kind"] == kind && name(object) == wanted);
        let object = position.map(|position| state.objects.remove(position)).unwrap();
        state.revision += 1;
        state.tell("DELETED", &object);
    }

    /// Whether there is an object.
    pub fn has(&self, kind: &str, wanted: &str) -> bool {
        self.find(kind, wanted).is_some()
    }

    /// Reason and message of every event.
    pub fn events(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap().events.clone()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        let given: Value = serde_json::from_slice(&body).unwrap_or_default();
        let kind = if path.contains("endpointslices") { "EndpointSlice" } else { "Service" };
        match parts.method {
            Method::GET if parts.uri.query().unwrap_or_default().contains("watch=true") => {
                self.watch(kind, parts.uri.query().unwrap_or_default())
            }
            Method::GET if path.contains("slices/") => match self.find(kind, last(&path)) {
                Some(object) => respond(&object),
                None => refuse("NotFound", hyper::StatusCode::NOT_FOUND),
            },
            Method::DELETE => {
                self.delete(kind, last(&path));
                respond(&json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            Method::GET => self.list(kind),
            Method::PATCH if path.ends_with("/status") => self.patch(&path, &given),
            Method::PATCH if kind == "EndpointSlice" => self.change(kind, &path, &given),
            Method::POST if path.ends_with("/services") || path.ends_with("/endpointslices") => {
                self.create(kind, given)
            }
            Method::POST => {
                let text = |field: &str| given[field].as_str().unwrap_or_default().to_owned();
                self.0.lock().unwrap().events.push((text("reason"), text("message")));
                respond(&given)
            }
            _ => respond(&json!({})),
        }
    }

    fn watch(&self, kind: &'static str, query: &str) -> Response<Answer> {
        let (sender, receiver) = mpsc::unbounded();
        let version = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse().ok());
        let since: u64 = version.unwrap_or_default();
        let mut state = self.0.lock().unwrap();
        for (_, event) in
            state.told.iter().filter(|(at, event)| *at > since && event["object"]["kind"] == kind)
        {
            sender.unbounded_send(event.clone()).unwrap();
        }
        state.watchers.push((kind, sender));
        drop(state);
        let frames =
            receiver.map(|event: Value| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    fn list(&self, kind: &'static str) -> Response<Answer> {
        let state = self.0.lock().unwrap();
        let items: Vec<&Value> = state.objects.iter().filter(|object| object["kind"] == kind).collect();
        let revision = state.revision.max(1).to_string();
        respond(&json!({"kind": format!("{kind}List"), "apiVersion": "v1",
            "metadata": {"resourceVersion": revision}, "items": items}))
    }

    fn find(&self, kind: &str, wanted: &str) -> Option<Value> {
        let state = self.0.lock().unwrap();
        state.objects.iter().find(|object| object["kind"] == kind && name(object) == wanted).cloned()
    }

    fn create(&self, kind: &str, given: Value) -> Response<Answer> {
        if self.find(kind, name(&given)).is_some() {
            return refuse("AlreadyExists", hyper::StatusCode::CONFLICT);
        }
        self.put(given.clone());
        respond(&given)
    }

    /// Replaces the members a merge patch names; deep enough for slices.
    fn change(&self, kind: &str, path: &str, patch: &Value) -> Response<Answer> {
        let mut object = self.find(kind, path.rsplit('/').next().unwrap()).unwrap();
        for (member, value) in patch.as_object().unwrap().iter().filter(|(member, _)| *member != "metadata") {
            object[member] = value.clone();
        }
        self.put(object.clone());
        respond(&object)
    }

    fn patch(&self, path: &str, patch: &Value) -> Response<Answer> {
        let service = path.rsplit('/').nth(1).unwrap();
        let mut object = {
            let state = self.0.lock().unwrap();
            let found =
                state.objects.iter().find(|object| object["kind"] == "Service" && name(object) == service);
            found.unwrap().clone()
        };
        object["status"] = patch["status"].clone();
        self.put(object.clone());
        respond(&object)
    }
}

impl State {
    fn tell(&mut self, event: &str, object: &Value) {
        let event = json!({"type": event, "object": object});
        self.told.push((self.revision, event.clone()));
        let kind = object["kind"].as_str().unwrap();
        self.watchers
            .retain(|(watched, sender)| *watched != kind || sender.unbounded_send(event.clone()).is_ok());
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

fn refuse(reason: &str, code: hyper::StatusCode) -> Response<Answer> {
    let mut refused = respond(&json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": reason, "code": code.as_u16()}));
    *refused.status_mut() = code;
    refused
}

fn respond(value: &Value) -> Response<Answer> {
    Response::new(Full::from(value.to_string()).boxed_unsync())
}

/// A LoadBalancer service on a port, with this ClusterIP.
pub fn load_balancer(name: &str, cluster_ip: &str, port: u16) -> Value {
    json!({"kind": "Service", "apiVersion": "v1",
        "metadata": {"namespace": "default", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"type": "LoadBalancer", "clusterIP": cluster_ip, "ports": [{"port": port, "protocol": "TCP"}]}})
}

/// The slice of a service with ready endpoints.
pub fn slice(service: &str, addresses: &[String], port: u16) -> Value {
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}, "targetRef": {"uid": address}}))
        .collect();
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {"namespace": "default", "name": format!("{service}-1"),
            "labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints, "ports": [{"name": "", "port": port, "protocol": "TCP"}]})
}
