//! POST of `/pods/NAME/binding` and `/bindings`: the scheduler's decision.

use crate::allocator::Reservation;
use crate::answer;
use crate::body::Body;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::rest::input;
use crate::rest::modify::{Next, raw};
use http::{Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sagong_api::error::ApiError;
use sagong_api::{field, status};

/// Puts the pod on the node, unless it already is on one.
pub(crate) async fn bind(context: &Context) -> Outcome<Response<Body>> {
    let dry_run = context.dry_run("CreateOptions", None)?;
    let json = input::to_json(&context.headers, &context.body)?;
    input::check_type(&json, "v1", "Binding")?;
    let binding: Binding = serde_json::from_slice(&json).map_err(|error| {
        Failure::bad_request(format!("Binding in version \"v1\" cannot be handled as a Binding: {error}"))
    })?;
    let given = binding.metadata.name.clone().unwrap_or_default();
    let name = context.name.clone().unwrap_or_else(|| given.clone());
    if !given.is_empty() && given != name {
        return Err(Failure::bad_request("name in URL does not match name in Binding object"));
    }
    validate(&binding, &name)?;
    let pods = context.core.resources.core("pods")?;
    let now = Timestamp::now();
    raw(&context.core, pods, context.namespace.as_deref(), &name, dry_run, |_, mut object| {
        let pod = object.as_any_mut().downcast_mut::<Pod>();
        let pod = pod.ok_or_else(|| Failure::internal("a stored pod is not one"))?;
        assign(pod, &binding, now)?;
        Ok(Next::Put(object, Reservation::default()))
    })
    .await?;
    Ok(answer::json_value(StatusCode::CREATED, &status::success(201)))
}

fn validate(binding: &Binding, name: &str) -> Outcome<()> {
    let mut errors = Vec::new();
    let target = field::Path::new("target");
    let kind = binding.target.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        errors.push(field::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.target.name.as_deref().unwrap_or_default().is_empty() {
        errors.push(field::required(&target.child("name"), ""));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::Invalid { kind: "Binding".into(), name: name.into(), errors }.into())
}

fn assign(pod: &mut Pod, binding: &Binding, now: Timestamp) -> Outcome<()> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let refuse = |detail: String| {
        let resource = "pods/binding".to_owned();
        Failure::from(ApiError::Conflict { resource, name: name.clone(), detail })
    };
    if binding.metadata.uid.is_some() && binding.metadata.uid != pod.metadata.uid {
        return Err(refuse(format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            binding.metadata.uid.clone().unwrap_or_default(),
            pod.metadata.uid.clone().unwrap_or_default()
        )));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(refuse(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let spec = pod.spec.get_or_insert_default();
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return Err(refuse(format!("pod {name} is already assigned to node {node:?}")));
    }
    spec.node_name = binding.target.name.clone();
    for (key, value) in binding.metadata.annotations.iter().flatten() {
        pod.metadata.annotations.get_or_insert_default().insert(key.clone(), value.clone());
    }
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let scheduled = PodCondition {
        type_: "PodScheduled".into(),
        status: "True".into(),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    };
    match conditions.iter_mut().find(|c| c.type_ == "PodScheduled") {
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
    Ok(())
}
