//! `scale`, `autoscale`.

use crate::builder::{self, Builder, Info};
use crate::client::JSON;
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::object;
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller};
use crate::write::{self, MERGE};
use http::Method;
use serde_json::json;

/// Flags of `scale`.
pub(crate) const FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[
        DRY_RUN,
        builder::SELECTOR,
        builder::ALL,
        write::RECORD,
        flag("replicas", Takes::Number, "-1", "How many"),
        flag("current-replicas", Takes::Number, "-1", "Only if there are that many now"),
        flag("resource-version", Takes::Text, "", "Only if the object has this version"),
        flag("timeout", Takes::Span, "0s", "How long to wait for it"),
    ],
];

/// Runs `scale`.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    if !flags.given("replicas") {
        return Err(Failure::Verbatim("error: required flag(s) \"replicas\" not set".into()));
    }
    let count = flags.number("replicas");
    if count < 0 {
        return fail("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0");
    }
    if flags.number("current-replicas") < -1 {
        return fail("The --current-replicas must specify an integer of -1 or greater");
    }
    let teller = Teller::from_flags(context)?;
    let mut builder = Builder::new(context, &flags.args);
    builder.empty_selector = flags.on("all");
    builder.all = false;
    builder.latest = false;
    let found = builder.run(context).await?;
    let mut failures = found.failures;
    if !flags.text("resource-version").is_empty() && found.infos.len() > 1 {
        return fail("cannot use --resource-version with multiple resources");
    }
    let mut any = false;
    for info in found.infos {
        any = true;
        if teller.dry_run == DryRun::Client {
            teller.tell(&info.object, "scaled")?;
            continue;
        }
        match one(context, &teller, &info, count).await {
            Ok(()) => teller.tell(&info.object, "scaled")?,
            Err(error) => failures.push(error),
        }
    }
    if !any {
        let why = if failures.is_empty() { String::new() } else { Failure::Many(failures.clone()).text() };
        return fail(format!("no objects passed to scale {why}").trim_end());
    }
    Failure::aggregate(failures)
}

async fn one(context: &Context, teller: &Teller, info: &Info, count: i64) -> Outcome {
    let flags = &context.flags;
    let path = format!("{}/scale", info.path());
    let client = context.client().await?;
    let expected = flags.number("current-replicas");
    let version = flags.text("resource-version");
    let query = teller.query("");
    let borrowed: Vec<(&str, &str)> = query.iter().map(|(k, v)| (*k, v.as_str())).collect();
    if expected >= 0 || !version.is_empty() {
        let mut scale = client.get(&path, &[]).await?;
        let now = object::number(&scale, "/spec/replicas");
        if expected >= 0 && now != expected {
            return fail(format!("Expected replicas to be {expected}, was {now}"));
        }
        let has = object::text(&scale, "/metadata/resourceVersion");
        if !version.is_empty() && has != version {
            return fail(format!("Expected resource version to be {version}, was {has}"));
        }
        scale["spec"]["replicas"] = count.into();
        client.call(Method::PUT, &path, &borrowed, Some((JSON, &scale))).await?;
    } else {
        let body = json!({"spec": {"replicas": count}});
        client.call(Method::PATCH, &path, &borrowed, Some((MERGE, &body))).await?;
    }
    if let Some(cause) = write::cause(context) {
        let body = json!({"metadata": {"annotations": {write::CHANGE_CAUSE: cause}}});
        write::patch(context, info, MERGE, &body, &query, "").await?;
    }
    let timeout = flags.span("timeout");
    if timeout > 0 {
        let reached = async {
            loop {
                let now = client.get(&path, &[]).await?;
                if object::number(&now, "/status/replicas") == count {
                    return Ok(());
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        let limit = std::time::Duration::from_nanos(timeout as u64);
        return tokio::time::timeout(limit, reached)
            .await
            .unwrap_or_else(|_| fail("timed out waiting for the condition"));
    }
    Ok(())
}

/// Flags of `autoscale`.
pub(crate) const AUTOSCALE_FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[
        DRY_RUN,
        write::RECORD,
        write::SAVE_CONFIG,
        write::manager("kubectl-autoscale"),
        flag("min", Takes::Number, "-1", "At least so many"),
        flag("max", Takes::Number, "-1", "At most so many"),
        flag("cpu-percent", Takes::Number, "-1", "CPU to aim at"),
        flag("name", Takes::Text, "", "Name of the autoscaler"),
    ],
];

/// Runs `autoscale`.
///
/// # Errors
/// What the command line or the server is to blame for; the server may have no autoscalers.
pub(crate) async fn autoscale(context: &Context) -> Outcome {
    let flags = &context.flags;
    let (min, max) = (flags.number("min"), flags.number("max"));
    if !flags.given("max") {
        return Err(Failure::Verbatim("error: required flag(s) \"max\" not set".into()));
    }
    if max < 1 {
        return fail(format!("--max=MAXPODS is required and must be at least 1, max: {max}"));
    }
    if max < min {
        return fail(format!(
            "--max=MAXPODS must be larger or equal to --min=MINPODS, max: {max}, min: {min}"
        ));
    }
    let mut builder = Builder::new(context, &flags.args);
    builder.latest = true;
    for info in builder.run(context).await?.all()? {
        let name = if flags.text("name").is_empty() { &info.name } else { flags.text("name") };
        let mut spec = json!({"scaleTargetRef": {"apiVersion": info.mapping.api_version(), "kind": info.mapping.kind, "name": info.name}, "maxReplicas": max});
        if min > 0 {
            spec["minReplicas"] = min.into();
        }
        if flags.number("cpu-percent") >= 0 {
            let target = json!({"type": "Utilization", "averageUtilization": flags.number("cpu-percent")});
            spec["metrics"] = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
        }
        let object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name, "creationTimestamp": null}, "spec": spec, "status": {"desiredReplicas": 0, "currentMetrics": null}});
        super::create::generated(context, object, "").await?;
    }
    Ok(())
}
