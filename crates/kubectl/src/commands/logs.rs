//! `logs`.

use crate::builder::{self, Builder};
use crate::context::{Context, out_bytes};
use crate::failure::{Failure, Outcome, fail, quote};
use crate::flags::{Flag, Takes, flag, short};
use crate::object::{self, list, text};
use crate::pod_target;
use crate::watch::Lines;
use http::Method;
use serde_json::Value;
use std::cmp::Reverse;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 1] = [&[
    builder::SELECTOR,
    short("follow", 'f', Takes::Bool, "false", "Go on with what is still to come"),
    short("previous", 'p', Takes::Bool, "false", "Of the container before this one"),
    short("container", 'c', Takes::Text, "", "Which container"),
    flag("all-containers", Takes::Bool, "false", "All containers"),
    flag("all-pods", Takes::Bool, "false", "All pods"),
    flag("since", Takes::Span, "0s", "Not older than this"),
    flag("since-time", Takes::Text, "", "Not older than this time"),
    flag("tail", Takes::Number, "-1", "So many last lines"),
    flag("limit-bytes", Takes::Number, "0", "So many bytes at most"),
    flag("timestamps", Takes::Bool, "false", "With times"),
    flag("prefix", Takes::Bool, "false", "With pod and container before each line"),
    flag("ignore-errors", Takes::Bool, "false", "Go on after failures"),
    flag("max-log-requests", Takes::Number, "5", "So many at once at most"),
    flag("pod-running-timeout", Takes::Span, "20s", "How long to wait for a pod"),
    flag("insecure-skip-tls-verify-backend", Takes::Bool, "false", "Do not check the node's certificate"),
]];

/// Runs it.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let selector = flags.text("selector").to_owned();
    let usage = "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command";
    let mut container = flags.text("container").to_owned();
    let target = match flags.args.as_slice() {
        [] if selector.is_empty() => return Err(context.usage(usage)),
        [] => None,
        [_, ..] if !selector.is_empty() => {
            return Err(context.usage("only a selector (-l) or a POD name is allowed"));
        }
        [one] => Some(one.clone()),
        [one, two] => {
            if !container.is_empty() {
                return Err(context.usage("only one of -c or an inline [CONTAINER] arg is allowed"));
            }
            container = two.clone();
            Some(one.clone())
        }
        _ => return Err(context.usage(usage)),
    };
    if flags.on("all-containers") && !container.is_empty() {
        return fail(format!(
            "--all-containers=true should not be specified with container name {container}"
        ));
    }
    if !flags.text("since-time").is_empty() && flags.span("since") != 0 {
        return fail("at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    if flags.number("tail") < -1 {
        return fail("--tail must be greater than or equal to -1");
    }
    if flags.given("since") && flags.span("since") < 0 {
        return fail("--since must be greater than 0");
    }
    if flags.number("limit-bytes") < 0 {
        return fail("--limit-bytes must be greater than 0");
    }
    pod_target::timeout(context)
        .map_err(|_| Failure::Message("--pod-running-timeout must be higher than zero".into()))?;
    let since = flags.text("since-time");
    if !since.is_empty() && since.parse::<jiff::Timestamp>().is_err() {
        const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
        return fail(format!(
            "parsing time {} as {}: cannot parse {} as \"2006\"",
            quote(since),
            quote(LAYOUT),
            quote(since)
        ));
    }
    let pods = pods(context, target.as_deref()).await?;
    let mut streams = Vec::new();
    for pod in &pods {
        for name in containers(context, pod, &container)? {
            streams.push((pod, name));
        }
    }
    if flags.on("follow") && streams.len() as i64 > flags.number("max-log-requests") {
        return fail(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
            streams.len(),
            flags.number("max-log-requests")
        ));
    }
    if flags.on("follow") && streams.len() > 1 {
        let each = streams.iter().map(|(pod, name)| stream(context, pod, name, !selector.is_empty()));
        return futures::future::join_all(each).await.into_iter().collect();
    }
    for (pod, name) in &streams {
        if let Err(error) = stream(context, pod, name, !selector.is_empty()).await {
            if !flags.on("ignore-errors") {
                return Err(error);
            }
            context.err(&error.shown());
        }
    }
    Ok(())
}

/// The pods that are meant; of a controller the first, unless all are asked for.
async fn pods(context: &Context, target: Option<&str>) -> Outcome<Vec<Value>> {
    let flags = &context.flags;
    let Some(target) = target else {
        let mut builder = Builder::new(context, &["pods".to_owned()]);
        builder.empty_selector = true;
        let found: Vec<Value> =
            builder.run(context).await?.all()?.into_iter().map(|info| info.object).collect();
        if found.is_empty() {
            let (namespace, _) = context.namespace().await?;
            context.err(&format!("No resources found in {namespace} namespace.\n"));
        }
        return Ok(found);
    };
    let args =
        if target.contains('/') { vec![target.to_owned()] } else { vec!["pods".into(), target.to_owned()] };
    let mut builder = Builder::new(context, &args);
    builder.selector = None;
    let (namespace, _) = context.namespace().await?;
    let mut infos = builder.run(context).await?.all().map_err(|error| match error.is_not_found() {
        true => Failure::Message(format!(
            "error from server (NotFound): {} in namespace {}",
            error.text(),
            quote(&namespace)
        )),
        false => error,
    })?;
    let Some(info) = infos.pop() else { return Ok(Vec::new()) };
    if info.mapping.kind == "Pod" {
        return Ok(vec![info.object]);
    }
    let selector = pod_target::selector(&info.object).map_err(|why| {
        let mapping = &info.mapping;
        let kind = format!("*{}.{}", mapping.version, mapping.kind);
        Failure::Message(format!("cannot get the logs from {kind}: {}", why.replace("%T", &kind)))
    })?;
    let path = context.resource("pods").await?.collection(&info.namespace);
    let list_ = context.client().await?.get(&path, &[("labelSelector", selector.as_str())]).await?;
    let mut pods = list(&list_, "/items").to_vec();
    pods.iter_mut().for_each(|pod| {
        pod["kind"] = "Pod".into();
    });
    pods.sort_by_key(rank);
    if pods.is_empty() {
        let patience = crate::pod_target::timeout(context)
            .map_err(|_| Failure::Message("--pod-running-timeout must be higher than zero".into()))?;
        let pod = crate::pod_target::first(context, &info.namespace, &selector, patience).await?;
        return Ok(vec![pod]);
    }
    if pods.len() > 1 && !flags.on("all-pods") {
        context.err(&format!("Found {} pods, using pod/{}\n", pods.len(), object::name(&pods[0])));
        pods.truncate(1);
    }
    Ok(pods)
}

/// The place of a pod, in the order in which kubectl looks for the one whose log tells most (`podutils.ByLogging`): assigned before
/// unassigned, running before unknown before pending, ready before not, ready for longer, restarted more often,
/// older. A time that is missing counts as the latest.
fn rank(pod: &Value) -> impl Ord + use<> {
    let phase = match text(pod, "/status/phase") {
        "Unknown" => 1,
        "Pending" => 2,
        _ => 0,
    };
    // Times in RFC 3339, UTC and whole seconds: in the order of their texts.
    let or_latest = |time: &str| if time.is_empty() { "~".to_owned() } else { time.to_owned() };
    let ready = list(pod, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
    let ready = ready.filter(|c| text(c, "/status") == "True");
    let ready_since = ready.map(|c| or_latest(text(c, "/lastTransitionTime")));
    let restarts =
        list(pod, "/status/containerStatuses").iter().filter_map(|c| c["restartCount"].as_i64()).max();
    (
        text(pod, "/spec/nodeName").is_empty(),
        phase,
        ready.is_none(),
        ready_since,
        Reverse(restarts.unwrap_or(0)),
        or_latest(text(pod, "/metadata/creationTimestamp")),
    )
}

fn containers(context: &Context, pod: &Value, wanted: &str) -> Outcome<Vec<String>> {
    let names =
        |field: &str| list(pod, field).iter().map(|c| text(c, "/name").to_owned()).collect::<Vec<_>>();
    let (init, main) = (names("/spec/initContainers"), names("/spec/containers"));
    if context.flags.on("all-containers") {
        return Ok(init.into_iter().chain(main).collect());
    }
    if !wanted.is_empty() {
        if !init.iter().chain(&main).any(|name| name == wanted) {
            return fail(format!("container {wanted} is not valid for pod {}", object::name(pod)));
        }
        return Ok(vec![wanted.to_owned()]);
    }
    if main.len() + init.len() > 1 {
        let mut all = main.clone();
        all.extend(init.iter().map(|name| format!("{name} (init)")));
        context.err(&format!("Defaulted container {} out of: {}\n", quote(&main[0]), all.join(", ")));
    }
    Ok(main.into_iter().take(1).collect())
}

async fn stream(context: &Context, pod: &Value, container: &str, selected: bool) -> Outcome {
    let flags = &context.flags;
    let path = format!("/api/v1/namespaces/{}/pods/{}/log", object::namespace(pod), object::name(pod));
    let mut query: Vec<(&str, String)> = vec![("container", container.to_owned())];
    for (flag, key) in [
        ("follow", "follow"),
        ("previous", "previous"),
        ("timestamps", "timestamps"),
        ("insecure-skip-tls-verify-backend", "insecureSkipTLSVerifyBackend"),
    ] {
        if flags.on(flag) {
            query.push((key, "true".into()));
        }
    }
    let tail = if flags.given("tail") {
        flags.number("tail")
    } else if selected {
        10
    } else {
        -1
    };
    if tail >= 0 {
        query.push(("tailLines", tail.to_string()));
    }
    if flags.span("since") != 0 {
        query.push(("sinceSeconds", (flags.span("since") / 1_000_000_000).max(1).to_string()));
    }
    for (flag, key) in [("since-time", "sinceTime"), ("limit-bytes", "limitBytes")] {
        if flags.given(flag) {
            query.push((key, flags.text(flag).to_owned()));
        }
    }
    let query: Vec<(&str, &str)> = query.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let response =
        context.client().await?.send(Method::GET, &path, &query, None, "application/json, */*").await?;
    let prefix =
        if flags.on("prefix") { format!("[pod/{}/{container}] ", object::name(pod)) } else { String::new() };
    let mut lines = Lines::new(response.into_body());
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            _ = tokio::signal::ctrl_c(), if flags.on("follow") => return Err(Failure::Exit(130)),
        };
        match line {
            Some(line) => {
                let mut bytes = prefix.clone().into_bytes();
                bytes.extend(line?);
                out_bytes(&bytes);
            }
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn pod(node: &str, phase: &str, ready: Option<&str>, restarts: i64, created: &str) -> Value {
        let status = if ready.is_some() { "True" } else { "False" };
        json!({
            "metadata": {"creationTimestamp": created},
            "spec": {"nodeName": node},
            "status": {
                "phase": phase,
                "conditions": [{"type": "Ready", "status": status, "lastTransitionTime": ready.unwrap_or("2026-01-01T00:00:00Z")}],
                "containerStatuses": [{"restartCount": restarts}],
            },
        })
    }

    const EARLY: &str = "2026-01-01T00:00:01Z";
    const LATE: &str = "2026-01-01T00:00:02Z";

    #[rstest]
    #[case::assigned(pod("n", "Pending", None, 0, LATE), pod("", "Running", Some(EARLY), 0, EARLY))]
    #[case::running(pod("n", "Running", None, 0, LATE), pod("n", "Pending", None, 0, EARLY))]
    #[case::ready(pod("n", "Running", Some(LATE), 0, LATE), pod("n", "Running", None, 9, EARLY))]
    #[case::ready_for_longer(
        pod("n", "Running", Some(EARLY), 0, LATE),
        pod("n", "Running", Some(LATE), 9, EARLY)
    )]
    #[case::restarted(pod("n", "Running", Some(EARLY), 1, LATE), pod("n", "Running", Some(EARLY), 0, EARLY))]
    #[case::older(pod("n", "Running", Some(EARLY), 0, EARLY), pod("n", "Running", Some(EARLY), 0, LATE))]
    #[case::with_a_time(pod("n", "Running", Some(EARLY), 0, LATE), pod("n", "Running", Some(EARLY), 0, ""))]
    fn of_many_pods_the_one_that_tells_most_is_read(#[case] first: Value, #[case] second: Value) {
        assert!(rank(&first) < rank(&second));
    }
}
