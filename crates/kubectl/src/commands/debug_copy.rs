//! `debug --copy-to`: a copy of a pod, with one more container or with others' images and commands.

use super::debug;
use crate::builder::Info;
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::Parsed;
use crate::object;
use crate::write;
use http::Method;
use serde_json::{Value, json};

/// Whether the flags of `debug` go together.
///
/// # Errors
/// They do not.
pub(super) fn check(context: &Context, command: &[String]) -> Outcome {
    let flags = &context.flags;
    let images = flags.list("set-image");
    if let Some(wrong) = images.iter().find(|pair| !pair.contains('=')) {
        return Err(Failure::Verbatim(format!(
            "error: invalid argument {} for \"--set-image\" flag: {wrong} must be formatted as key=value\nSee '{} --help' for usage.",
            quote(wrong),
            context.command
        )));
    }
    if !flags.text("copy-to").is_empty() {
        if flags.text("image").is_empty() && images.is_empty() && command.is_empty() {
            return fail("you must specify --image, --set-image or command arguments.");
        }
        if !command.is_empty() && flags.text("image").is_empty() && flags.text("container").is_empty() {
            return fail("you must specify an existing container or a new image when specifying args.");
        }
        return Ok(());
    }
    if flags.text("image").is_empty() {
        return fail("you must specify --image when not using --copy-to.");
    }
    for flag in ["replace", "same-node"] {
        if flags.on(flag) {
            return fail(format!("--{flag} may only be used with --copy-to."));
        }
    }
    if !images.is_empty() {
        return fail("--set-image may only be used with --copy-to.");
    }
    Ok(())
}

/// Makes the copy, and attaches to its container if that is wished.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(super) async fn run(context: &Context, info: &Info, command: &[String]) -> Outcome {
    let flags = &context.flags;
    let mut copy = plain_copy(flags, &info.object);
    set_images(flags, &mut copy)?;
    let name = changed_container(context, &mut copy, command)?;
    let copied = Info {
        name: flags.text("copy-to").to_owned(),
        namespace: info.namespace.clone(),
        mapping: info.mapping.clone(),
        object: copy,
        source: String::new(),
    };
    if flags.on("replace") {
        context.client().await?.call(Method::DELETE, &info.path(), &[], None).await?;
    }
    write::create(context, &copied, &[]).await?;
    debug::attached(
        context,
        (copied.namespace.as_str(), copied.name.as_str()),
        &name,
        "/status/containerStatuses",
    )
    .await
}

/// The pod under its new name, without what ties it to a node, a controller or its services.
fn plain_copy(flags: &Parsed, pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("ephemeralContainers");
        if !flags.on("same-node") {
            spec.remove("nodeName");
        }
        if !flags.on("keep-init-containers") {
            spec.remove("initContainers");
        }
    }
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        for (flag, probe) in [
            ("keep-liveness", "livenessProbe"),
            ("keep-readiness", "readinessProbe"),
            ("keep-startup", "startupProbe"),
        ] {
            if !flags.on(flag)
                && let Some(container) = container.as_object_mut()
            {
                container.remove(probe);
            }
        }
    }
    let mut metadata = json!({"name": flags.text("copy-to"), "namespace": object::namespace(pod)});
    for (flag, field) in [("keep-labels", "labels"), ("keep-annotations", "annotations")] {
        if flags.on(flag) && pod["metadata"][field].is_object() {
            metadata[field] = pod["metadata"][field].clone();
        }
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn set_images(flags: &Parsed, copy: &mut Value) -> Outcome {
    for pair in flags.list("set-image") {
        let (name, image) = pair.split_once('=').unwrap_or((&pair, ""));
        for list in ["initContainers", "containers"] {
            let Some(containers) = copy["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
            for container in containers.iter_mut().filter(|one| name == "*" || one["name"] == name) {
                container["image"] = image.into();
            }
        }
    }
    Ok(())
}

/// Changes the container that is named, or adds one. Its name.
fn changed_container(context: &Context, copy: &mut Value, command: &[String]) -> Outcome<String> {
    let flags = &context.flags;
    let named = flags.text("container");
    let image = flags.text("image");
    let Some(containers) = copy["spec"]["containers"].as_array_mut() else {
        return fail("the pod has no containers");
    };
    if let Some(known) = containers.iter_mut().find(|one| !named.is_empty() && one["name"] == named) {
        let changes = debug::container(context, named, command)?;
        for (field, value) in changes.as_object().into_iter().flatten() {
            let wanted = match field.as_str() {
                "image" => !image.is_empty(),
                other => !matches!(other, "name" | "resources" | "terminationMessagePolicy"),
            };
            if wanted {
                known[field] = value.clone();
            }
        }
        return Ok(named.to_owned());
    }
    if image.is_empty() {
        return match containers.first() {
            Some(first) if named.is_empty() => Ok(object::text(first, "/name").to_owned()),
            _ => fail("you must specify image when creating new container"),
        };
    }
    let name = debug::container_name(context);
    let added = debug::container(context, &name, command)?;
    containers.push(added);
    if flags.on("share-processes") {
        copy["spec"]["shareProcessNamespace"] = true.into();
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_seen_by_no_service_and_bound_to_no_node() {
        let pod = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u", "labels": {"app": "web"},
                "ownerReferences": [{"name": "web"}]},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i", "readinessProbe": {}}]},
        });
        let flags = crate::flags::parse(&debug::FLAGS, &["--copy-to=copy".to_owned()]).unwrap_or_default();
        let expected = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "copy", "namespace": "shop"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        assert_eq!(plain_copy(&flags, &pod), expected);
    }
}
