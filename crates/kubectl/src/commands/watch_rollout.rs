//! `rollout watch`: one rollout, live. Not a command of kubectl.

use crate::builder::Builder;
use crate::context::{Context, out};
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::object::{self, list, number, text};
use crate::printers::table::age;
use crate::revisions;
use crate::watch;
use serde_json::Value;
use std::io::IsTerminal;

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 1] =
    [&[flag("timeout", Takes::Span, "0s", "How long to watch; 0 is for ever")]];

/// The pods of a replica set.
pub(crate) async fn pods_of(context: &Context, set: &Value) -> Outcome<Vec<Value>> {
    let selector = object::selector_text(&set["spec"]["selector"]);
    let path = context.resource("pods").await?.collection(object::namespace(set));
    let pods = context.client().await?.get(&path, &[("labelSelector", selector.as_str())]).await?;
    let uid = text(set, "/metadata/uid");
    let own = |pod: &&Value| object::controller(pod).is_some_and(|owner| text(owner, "/uid") == uid);
    Ok(list(&pods, "/items").iter().filter(own).cloned().collect())
}

/// Whether a pod gets traffic.
pub(crate) fn ready(pod: &Value) -> bool {
    list(pod, "/status/conditions").iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Why a pod is not ready, in one line.
pub(crate) fn reason(pod: &Value) -> String {
    for status in list(pod, "/status/containerStatuses") {
        for state in ["/state/waiting", "/state/terminated"] {
            let (reason, message) =
                (text(status, &format!("{state}/reason")), text(status, &format!("{state}/message")));
            if !reason.is_empty() {
                return if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") };
            }
        }
    }
    let condition = list(pod, "/status/conditions").iter().find(|c| c["status"] == "False");
    match condition.map(|c| (text(c, "/reason"), text(c, "/message"))) {
        Some((reason, message)) if !message.is_empty() => format!("{reason}: {message}"),
        Some((reason, _)) if !reason.is_empty() => reason.to_owned(),
        _ => text(pod, "/status/phase").to_owned(),
    }
}

/// Runs it.
///
/// # Errors
/// There is no such deployment; the rollout failed.
pub(crate) async fn run(context: &Context) -> Outcome {
    let infos = Builder::new(context, &context.flags.args).run(context).await?.all()?;
    let [info] = infos.as_slice() else {
        return fail("one deployment is required: rollout watch deployment/NAME");
    };
    if info.mapping.kind != "Deployment" {
        return fail(format!("{} has no rollout to watch: only deployments have", info.mapping.named()));
    }
    let screen = std::io::stdout().is_terminal();
    let pods = context.resource("pods").await?.collection(&info.namespace);
    let query = [("watch".to_owned(), "true".to_owned())];
    let mut events = watch::open(context, &pods, &query, crate::client::JSON).await?;
    let mut before = String::new();
    let deadline = context.flags.span("timeout");
    let began = std::time::Instant::now();
    loop {
        let object = context.client().await?.get(&info.path(), &[]).await?;
        let picture = picture(context, &object).await?;
        if picture != before {
            if screen {
                out(&format!("\x1b[H\x1b[2J{picture}"))
            } else {
                out(&format!("{}\n", line(&object)))
            }
            before = picture;
        }
        let (said, done) = super::rollout::progress(&object, 0)?;
        if done {
            out(&said);
            return Ok(());
        }
        if deadline > 0 && began.elapsed().as_nanos() as i128 > deadline {
            return fail("timed out waiting for the condition");
        }
        // Whatever a pod does is worth a new look; the deployment itself changes with its pods.
        tokio::select! {
            event = watch::next_or_interrupt(&mut events) => match event {
                Some(Err(error @ Failure::Exit(_))) => return Err(error),
                None => return Ok(()),
                Some(_) => {}
            },
            () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {}
        }
    }
}

/// The state in one line, for pipes.
fn line(object: &Value) -> String {
    let n = |field: &str| number(object, &format!("/status/{field}"));
    format!(
        "{}: {} desired, {} updated, {} total, {} ready, {} available",
        object::name(object),
        number(object, "/spec/replicas"),
        n("updatedReplicas"),
        n("replicas"),
        n("readyReplicas"),
        n("availableReplicas")
    )
}

async fn picture(context: &Context, object: &Value) -> Outcome<String> {
    let rolling = &object["spec"]["strategy"]["rollingUpdate"];
    let budget = |field: &str| crate::printers::go_template::go_value(&rolling[field]);
    let mut text_ = format!(
        "{}\nsurge {}   unavailable {}\n\n",
        line(object),
        budget("maxSurge"),
        budget("maxUnavailable")
    );
    let (new, old) = revisions::split(object, revisions::replica_sets(context, object).await?);
    let wanted = number(object, "/spec/replicas").max(1) as usize;
    for (label, set) in old.iter().map(|set| ("old", set)).chain(new.iter().map(|set| ("new", set))) {
        let (total, ready_) =
            (number(set, "/status/replicas") as usize, number(set, "/status/readyReplicas") as usize);
        if total == 0 && number(set, "/spec/replicas") == 0 && label == "old" {
            continue;
        }
        let width = 30 * total.min(wanted * 2) / wanted;
        let full = 30 * ready_.min(wanted * 2) / wanted;
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(width.saturating_sub(full)));
        text_.push_str(&format!(
            "{label} {}  revision {}  {bar} {ready_}/{total}\n",
            object::name(set),
            revisions::revision(set)
        ));
        for pod in pods_of(context, set).await? {
            let state = if text(&pod, "/metadata/deletionTimestamp").is_empty() {
                if ready(&pod) { "ready".to_owned() } else { reason(&pod) }
            } else {
                "terminating".to_owned()
            };
            let since = age(text(&pod, "/metadata/creationTimestamp"));
            text_.push_str(&format!("    {}  {since}  {state}\n", object::name(&pod)));
        }
    }
    text_.push('\n');
    for c in list(object, "/status/conditions") {
        text_.push_str(&format!("{} {} {}\n", text(c, "/type"), text(c, "/status"), text(c, "/reason")));
    }
    Ok(text_)
}
