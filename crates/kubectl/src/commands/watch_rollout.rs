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
    let (mut before, mut last_line) = (String::new(), String::new());
    let deadline = context.flags.span("timeout");
    let began = std::time::Instant::now();
    loop {
        let object = context.client().await?.get(&info.path(), &[]).await?;
        let picture = picture(context, &object).await?;
        if picture != before {
            if screen {
                out(&painted(&picture, crate::terminal::size_of_output(), before.is_empty()));
            } else if last_line != line(&object) {
                last_line = line(&object);
                out(&format!("{last_line}\n"));
            }
            before = picture;
        }
        let (said, done) = match super::rollout::progress(&object, 0) {
            Ok(progress) => progress,
            Err(error) => return Err(super::rollout::explained(context, &object, error).await),
        };
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

/// A picture for a terminal of so many columns and rows: over the one before, line by line, so that nothing flickers,
/// and never longer than the screen, which would scroll. No state of the terminal is changed that would have to be
/// put back.
fn painted(picture: &str, size: Option<(u16, u16)>, first: bool) -> String {
    let (columns, rows) = size.map_or((80, 24), |(c, r)| (usize::from(c).max(20), usize::from(r).max(5)));
    let lines: Vec<&str> = picture.trim_end().lines().collect();
    // One line is left for the cursor.
    let room = rows - 1;
    let mut shown: Vec<String> = lines.iter().take(room).map(|line| cut(line, columns)).collect();
    if lines.len() > room {
        shown[room - 1] = cut(&format!("… {} more lines", lines.len() - room + 1), columns);
    }
    let start = if first { "\x1b[2J\x1b[H" } else { "\x1b[H" };
    let body: String = shown.iter().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("{start}{body}\x1b[J")
}

fn cut(line: &str, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line.to_owned();
    }
    line.chars().take(columns - 1).chain(['…']).collect()
}

/// The last things that happened to a deployment, the newest last.
async fn events(context: &Context, object: &Value) -> Outcome<Vec<String>> {
    let path = format!("/api/v1/namespaces/{}/events", object::namespace(object));
    let fields = format!("involvedObject.kind=Deployment,involvedObject.name={}", object::name(object));
    let found = context.client().await?.get(&path, &[("fieldSelector", fields.as_str())]).await?;
    let when = |event: &Value| {
        let last = text(event, "/lastTimestamp");
        if last.is_empty() { text(event, "/eventTime").to_owned() } else { last.to_owned() }
    };
    // Not those of one that had the name before.
    let own = |event: &&Value| event["involvedObject"]["uid"] == object["metadata"]["uid"];
    let mut events: Vec<&Value> = list(&found, "/items").iter().filter(own).collect();
    events.sort_by_key(|event| when(event));
    let last = events.iter().rev().take(EVENTS).rev();
    Ok(last.map(|event| format!("{:>5}  {}", age(&when(event)), text(event, "/message"))).collect())
}

/// How many events are shown.
const EVENTS: usize = 5;

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
    // Whoever may not read events sees the rest all the same.
    let events = events(context, object).await.unwrap_or_default();
    if !events.is_empty() {
        text_.push_str(&format!("\n{}\n", events.join("\n")));
    }
    Ok(text_)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_never_leaves_the_screen() {
        let picture: String = (0..50).map(|n| format!("{n} {}\n", "x".repeat(200))).collect();
        let shown = painted(&picture, Some((40, 10)), false);
        let lines: Vec<&str> =
            shown.trim_start_matches("\x1b[H").trim_end_matches("\x1b[J").lines().collect();
        assert_eq!(lines.len(), 9);
        assert!(lines.iter().all(|line| line.trim_end_matches("\x1b[K").chars().count() <= 40));
        assert!(lines[8].starts_with("… 42 more lines"), "{}", lines[8]);
    }

    #[test]
    fn a_small_picture_is_shown_whole() {
        assert_eq!(painted("a\nb\n", Some((40, 10)), true), "\x1b[2J\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
