//! `create deployment`, `create job` and `create cronjob`.

use super::{GENERATOR, generated, required};
use crate::builder::Builder;
use crate::context::Context;
use crate::failure::{Outcome, fail};
use crate::flags::{Flag, Takes, flag, short};
use crate::printers::PRINT;
use serde_json::{Value, json};

/// Flags of `create deployment`.
pub(crate) const DEPLOYMENT_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("image", Takes::List, "[]", "Images of its containers"),
        flag("port", Takes::Number, "-1", "Port its container listens on"),
        short("replicas", 'r', Takes::Number, "1", "How many pods"),
    ],
];

/// `create deployment`.
///
/// # Errors
/// As all generators.
pub(crate) async fn deployment(context: &Context) -> Outcome {
    let flags = &context.flags;
    let images = flags.list("image");
    required(context, &["image"])?;
    let (name, command) = name_and_command(context)?;
    if images.len() > 1 && !command.is_empty() {
        return fail("cannot specify multiple --image options and command");
    }
    let mut containers: Vec<Value> = Vec::new();
    for image in &images {
        let mut container = json!({"name": container_name(image), "image": image, "resources": {}});
        if !command.is_empty() {
            container["command"] = json!(command);
        }
        containers.push(container);
    }
    if flags.number("port") >= 0
        && let Some(first) = containers.first_mut()
    {
        first["ports"] = json!([{"containerPort": flags.number("port")}]);
    }
    let labels = json!({"app": name});
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "creationTimestamp": null, "labels": labels},
        "spec": {
            "replicas": flags.number("replicas"), "selector": {"matchLabels": labels}, "strategy": {},
            "template": {"metadata": {"creationTimestamp": null, "labels": labels}, "spec": {"containers": containers}},
        },
        "status": {},
    });
    generated(context, object, "deployment: ").await
}

/// `luksa/kubia:v1` runs in a container `kubia`.
fn container_name(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split(['@', ':']).next().unwrap_or_default()
}

/// Five letters and digits that make no words.
pub(crate) fn suffix() -> String {
    use rand::Rng;
    let letters = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5).map(|_| char::from(letters[rng.random_range(0..letters.len())])).collect()
}

/// Flags of `create job`.
pub(crate) const JOB_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("image", Takes::Text, "", "Image of its container"),
        flag("from", Takes::Text, "", "The cron job to take it from, cronjob/NAME"),
    ],
];

/// `create job`.
///
/// # Errors
/// As all generators.
pub(crate) async fn job(context: &Context) -> Outcome {
    let flags = &context.flags;
    let (name, command) = name_and_command(context)?;
    let (image, from) = (flags.text("image"), flags.text("from"));
    if image.is_empty() == from.is_empty() {
        return fail("either --image or --from must be specified");
    }
    if !command.is_empty() && !from.is_empty() {
        return fail("cannot specify --from and command");
    }
    if from.is_empty() {
        let spec = json!({"template": job_template(&name, image, command, "Never")});
        let object = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "creationTimestamp": null},
            "spec": spec, "status": {},
        });
        return generated(context, object, "job: ").await;
    }
    let mut infos = Builder::new(context, &[from.to_owned()]).run(context).await?.all()?;
    let Some(info) = infos.pop() else { return fail("from must be an existing cronjob") };
    if info.mapping.kind != "CronJob" {
        return fail(format!("unknown object type *{}.{}", info.mapping.version, info.mapping.kind));
    }
    let cron = &info.object;
    let mut annotations = json!({"cronjob.kubernetes.io/instantiate": "manual"});
    if let Value::Object(more) = &cron["spec"]["jobTemplate"]["metadata"]["annotations"] {
        more.iter().for_each(|(key, value)| annotations[key] = value.clone());
    }
    let mut object = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": name, "creationTimestamp": null, "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "CronJob", "name": info.name, "controller": true,
                "uid": cron["metadata"]["uid"],
            }],
        },
        "spec": cron["spec"]["jobTemplate"]["spec"], "status": {},
    });
    if cron["spec"]["jobTemplate"]["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = cron["spec"]["jobTemplate"]["metadata"]["labels"].clone();
    }
    generated(context, object, "job: ").await
}

/// Flags of `create cronjob`.
pub(crate) const CRON_JOB_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &GENERATOR,
    &[
        flag("image", Takes::Text, "", "Image of its container"),
        flag("schedule", Takes::Text, "", "When, as crontab(5) says it"),
        flag("restart", Takes::Text, "", "OnFailure or Never"),
    ],
];

/// `create cronjob`.
///
/// # Errors
/// As all generators.
pub(crate) async fn cron_job(context: &Context) -> Outcome {
    let flags = &context.flags;
    required(context, &["image", "schedule"])?;
    let (name, command) = name_and_command(context)?;
    let restart = if flags.text("restart").is_empty() { "OnFailure" } else { flags.text("restart") };
    let template = job_template(&name, flags.text("image"), command, restart);
    let object = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name, "creationTimestamp": null},
        "spec": {
            "schedule": flags.text("schedule"),
            "jobTemplate": {"metadata": {"name": name, "creationTimestamp": null}, "spec": {"template": template}},
        },
        "status": {},
    });
    generated(context, object, "cronjob: ").await
}

fn job_template(name: &str, image: &str, command: &[String], restart: &str) -> Value {
    let mut container = json!({"name": name, "image": image, "resources": {}});
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    json!({
        "metadata": {"creationTimestamp": null},
        "spec": {"containers": [container], "restartPolicy": restart},
    })
}

/// The name, and what stands behind it or behind `--`.
fn name_and_command(context: &Context) -> Outcome<(String, &[String])> {
    let flags = &context.flags;
    let (args, command) = flags.args.split_at(flags.dash.unwrap_or(flags.args.len()));
    match args {
        [name] => Ok((name.clone(), command)),
        args => Err(context.usage(&format!("exactly one NAME is required, got {}", args.len()))),
    }
}
