//! `rolling-update`: the client-side procedure that Deployments replaced, as chapter 9 tells it. Only for `sagong`;
//! as kubectl there is no such command any more.
//!
//! Everything it needs to go on after an interruption stands in the objects: the `deployment` label in selectors,
//! and the wished count of replicas as an annotation of the new controller.

use crate::builder::{self, Info};
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::manifest;
use crate::object::{self, number};
use crate::write::{self, MERGE};
use http::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 2] = [
    &builder::FILES,
    &[
        flag("image", Takes::Text, "", "Image of the new pods"),
        flag("container", Takes::Text, "", "Container that gets the image"),
        flag(
            "deployment-label-key",
            Takes::Text,
            "deployment",
            "Label that tells the controllers' pods apart",
        ),
        flag("update-period", Takes::Span, "1m0s", "Pause between steps"),
        flag("poll-interval", Takes::Span, "3s", "How often to look"),
        flag("timeout", Takes::Span, "5m0s", "How long a step may take"),
        flag("rollback", Takes::Bool, "false", "Back to the old controller"),
    ],
];

/// How many replicas the new controller is to get.
const DESIRED: &str = "kubectl.kubernetes.io/desired-replicas";

struct Run<'a> {
    context: &'a Context,
    key: String,
    period: Duration,
    poll: Duration,
    timeout: Duration,
}

/// Runs it.
///
/// # Errors
/// The controllers do not fit each other, a step takes too long, the server refuses; code 130 after Ctrl-C.
pub(crate) async fn run(context: &Context) -> Outcome {
    tokio::select! {
        result = procedure(context) => result,
        _ = tokio::signal::ctrl_c() => {
            context.err("Interrupted: the update stands still. Run the same command again to go on, or with --rollback to go back.\n");
            Err(Failure::Exit(130))
        }
    }
}

async fn procedure(context: &Context) -> Outcome {
    context.err(&format!("Warning: rolling-update is imperative: this client drives every step, and if it dies the update stands still. Kubernetes retired it for Deployments: use {0} set image deployment/NAME …, then {0} rollout status deployment/NAME\n", context.name));
    let flags = &context.flags;
    let span = |name| Duration::from_nanos(flags.span(name).max(0) as u64);
    let run = Run {
        context,
        key: flags.text("deployment-label-key").to_owned(),
        period: span("update-period"),
        poll: span("poll-interval").max(Duration::from_millis(10)),
        timeout: span("timeout"),
    };
    let Some(old_name) = flags.args.first() else {
        return Err(context.usage("Must specify the controller to update"));
    };
    let (image, files) = (flags.text("image"), flags.list("filename"));
    if image.is_empty() == files.is_empty() && !flags.on("rollback") {
        return Err(context.usage("Must specify --filename or --image for new controller, and not both"));
    }
    let old = run.get(old_name).await?;
    let mut new_name = flags.args.get(1).cloned();
    let new = if let Some(document) = manifest::read(&files, false).await?.into_iter().next() {
        new_name = Some(object::name(&document.object).to_owned());
        document.object
    } else {
        let name =
            new_name.clone().unwrap_or_else(|| format!("{old_name}-{}", hash(&format!("{old_name}{image}"))));
        new_name = Some(name.clone());
        run.derived(&old, &name, image)?
    };
    let Some(new_name) = new_name else { return fail("the new controller needs a name") };
    if new_name == *old_name {
        return fail(format!(
            "{new_name} cannot have the same name as the existing ReplicationController {old_name}"
        ));
    }
    if flags.on("rollback") {
        let (from, to) = (run.get(&new_name).await?, old);
        return run.update(from, to, old_name, true).await;
    }
    run.label_old(&old).await?;
    let wanted = number(&old, "/spec/replicas");
    let new = run.create_new(new, &new_name, wanted).await?;
    let old = run.get(old_name).await?;
    let keep_name = flags.args.get(1).is_none() && files.is_empty();
    run.update(old, new, if keep_name { old_name } else { &new_name }, false).await
}

/// Eight hex digits of a text.
fn hash(text: &str) -> String {
    let sum = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{:08x}", sum >> 32)
}

impl Run<'_> {
    async fn info(&self, name: &str) -> Outcome<Info> {
        let (namespace, _) = self.context.namespace().await?;
        let mapping = self.context.resource("replicationcontrollers").await?;
        Ok(Info { mapping, namespace, name: name.into(), object: Value::Null, source: String::new() })
    }

    async fn get(&self, name: &str) -> Outcome<Value> {
        let info = self.info(name).await?;
        self.context.client().await?.get(&info.path(), &[]).await
    }

    async fn patch(&self, name: &str, patch: &Value) -> Outcome<Value> {
        write::patch(self.context, &self.info(name).await?, MERGE, patch, &[], "").await
    }

    /// The old controller with another name, image and `deployment` label.
    fn derived(&self, old: &Value, name: &str, image: &str) -> Outcome<Value> {
        let mut new = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name, "labels": object::labels(old)}, "spec": old["spec"]});
        let wanted = self.context.flags.text("container");
        let Some(containers) =
            new.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut)
        else {
            return fail("the controller has no containers");
        };
        if containers.len() > 1 && wanted.is_empty() {
            return Err(self.context.usage("Must specify --container when updating to a new image of a controller with several containers"));
        }
        let Some(container) = containers.iter_mut().find(|c| wanted.is_empty() || c["name"] == wanted) else {
            return fail(format!("container {wanted} not found"));
        };
        container["image"] = image.into();
        Ok(new)
    }

    /// Adds the `deployment` label to the old pods, then to their selector: in this order no pod is ever without
    /// its controller.
    async fn label_old(&self, old: &Value) -> Outcome {
        if object::strings(old, "/spec/selector").contains_key(&self.key) {
            return Ok(());
        }
        let name = object::name(old);
        let value = hash(&old["spec"]["template"].to_string());
        let label = json!({"metadata": {"labels": {&self.key: value}}});
        self.patch(name, &json!({"spec": {"template": label}})).await?;
        let pods = self.context.resource("pods").await?;
        let namespace = object::namespace(old);
        let selector = object::joined(&object::strings(old, "/spec/selector"));
        let client = self.context.client().await?;
        let found = client.get(&pods.collection(namespace), &[("labelSelector", selector.as_str())]).await?;
        for pod in object::list(&found, "/items") {
            client
                .call(Method::PATCH, &pods.object(namespace, object::name(pod)), &[], Some((MERGE, &label)))
                .await?;
        }
        self.patch(name, &json!({"spec": {"selector": {&self.key: value}}})).await?;
        Ok(())
    }

    async fn create_new(&self, mut new: Value, name: &str, wanted: i64) -> Outcome<Value> {
        if let Ok(existing) = self.get(name).await {
            out(&format!("Found existing update in progress ({name}), resuming.\n"));
            return Ok(existing);
        }
        let value = hash(&format!("{name}{}", new["spec"]["template"]));
        new["spec"]["selector"][&self.key] = value.clone().into();
        new["spec"]["template"]["metadata"]["labels"][&self.key] = value.into();
        let wanted = if self.context.flags.list("filename").is_empty() {
            wanted
        } else {
            number(&new, "/spec/replicas").max(1)
        };
        write::annotate(&mut new, DESIRED, &wanted.to_string());
        new["spec"]["replicas"] = 0.into();
        let mut info = self.info(name).await?;
        new["metadata"]["namespace"] = info.namespace.clone().into();
        info.object = new;
        let created = write::create(self.context, &info, &[]).await?;
        out(&format!("Created {name}\n"));
        Ok(created)
    }

    /// One up, one down, until the old one is empty; then it goes.
    async fn update(&self, old: Value, new: Value, final_name: &str, back: bool) -> Outcome {
        let (old_name, new_name) = (object::name(&old).to_owned(), object::name(&new).to_owned());
        // How many there are to be stands in what the update made, whichever way it goes.
        let made = if back { &old } else { &new };
        let annotated = object::strings(made, "/metadata/annotations")
            .remove(DESIRED)
            .and_then(|text| text.parse::<i64>().ok());
        let wanted =
            annotated.unwrap_or_else(|| number(&old, "/spec/replicas").max(number(&new, "/spec/replicas")));
        let (mut down, mut up) = (number(&old, "/spec/replicas"), number(&new, "/spec/replicas"));
        out(&format!(
            "Scaling up {new_name} from {up} to {wanted}, scaling down {old_name} from {down} to 0 (keep {wanted} pods available, don't exceed {} pods)\n",
            wanted + 1
        ));
        while up < wanted || down > 0 {
            if up < wanted {
                up += 1;
                out(&format!("Scaling {new_name} up to {up}\n"));
                self.scale(&new_name, up).await?;
            }
            if down > 0 {
                down -= 1;
                out(&format!("Scaling {old_name} down to {down}\n"));
                self.scale(&old_name, down).await?;
            }
            if up < wanted || down > 0 {
                tokio::time::sleep(self.period).await;
            }
        }
        out(&format!("Update succeeded. Deleting {old_name}\n"));
        let info = self.info(&old_name).await?;
        self.context.client().await?.call(Method::DELETE, &info.path(), &[], None).await?;
        super::delete::gone(self.context, &info, &old, Some(self.timeout)).await?;
        if final_name != new_name && !back {
            return self.rename(&new_name, final_name).await;
        }
        let done = if back { "rolled back to" } else { "rolling updated to" };
        out(&format!("replicationcontroller/{old_name} {done} \"{new_name}\"\n"));
        Ok(())
    }

    /// The new controller under the old one's name; its pods are left alone meanwhile.
    async fn rename(&self, from: &str, to: &str) -> Outcome {
        out(&format!("Renaming {from} to {to}\n"));
        let mut object = self.get(from).await?;
        let mut info = self.info(from).await?;
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Orphan"});
        let client = self.context.client().await?;
        client.call(Method::DELETE, &info.path(), &[], Some((crate::client::JSON, &body))).await?;
        super::delete::gone(self.context, &info, &object, Some(self.timeout)).await?;
        let labels = object["metadata"]["labels"].clone();
        object["metadata"] = json!({"name": to, "namespace": info.namespace, "labels": labels});
        object["status"] = Value::Null;
        info.name = to.into();
        info.object = object;
        write::create(self.context, &info, &[]).await?;
        out(&format!("replicationcontroller/{to} rolling updated\n"));
        Ok(())
    }

    /// Scales, and waits until as many pods as wished are ready.
    async fn scale(&self, name: &str, count: i64) -> Outcome {
        self.patch(name, &json!({"spec": {"replicas": count}})).await?;
        let began = Instant::now();
        loop {
            let now = self.get(name).await?;
            let seen = number(&now, "/status/observedGeneration") >= number(&now, "/metadata/generation");
            if seen
                && number(&now, "/status/replicas") == count
                && number(&now, "/status/readyReplicas") >= count
            {
                return Ok(());
            }
            if began.elapsed() > self.timeout {
                return Err(Failure::Message(format!(
                    "timed out waiting for the pods of {name}: {} of {count} are ready\nnext: {} get pods, then run the same command again to go on, or with --rollback to go back",
                    number(&now, "/status/readyReplicas"),
                    self.context.name
                )));
            }
            tokio::time::sleep(self.poll).await;
        }
    }
}
