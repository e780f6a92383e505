//! What the demo shows while it runs: one live line on a terminal, one line a second elsewhere.

use super::load::Tally;
use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::apps::v1::Deployment;
use parking_lot::Mutex;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

/// Width of the bar of versions, in characters.
const BAR: u64 = 24;

/// What is going on, as the line is to tell it.
#[derive(Clone, Default)]
pub(crate) struct Scene {
    /// `v1 -> v2`.
    pub(crate) title: &'static str,
    /// Pods ready of pods wanted.
    pub(crate) ready: (i32, i32),
}

impl Scene {
    /// Takes over what a Deployment's status says.
    pub(crate) fn observe(&mut self, deployment: &Deployment) {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        self.ready = (ready, wanted);
    }
}

/// Redraws the line until `stop`. Lines go to standard error; standard output is for the result.
pub(crate) async fn run(scene: Arc<Mutex<Scene>>, tally: Arc<Tally>, stop: CancellationToken) {
    let live = std::io::stderr().is_terminal();
    let bar = if live { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    let period = Duration::from_millis(if live { 100 } else { 1000 });
    let mut tick = interval(period);
    let mut before = Counts::of(&tally);
    while stop.run_until_cancelled(tick.tick()).await.is_some() {
        let now = Counts::of(&tally);
        let text = line(&scene.lock().clone(), &now, &before, period);
        before = now;
        if live {
            bar.set_message(text);
            bar.tick();
        } else {
            eprintln!("{text}");
        }
    }
    bar.finish_and_clear();
}

#[derive(Clone, Copy, Default)]
struct Counts {
    sent: u64,
    failed: u64,
    v1: u64,
    v2: u64,
}

impl Counts {
    fn of(tally: &Tally) -> Self {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            sent: read(&tally.sent),
            failed: read(&tally.failed),
            v1: read(&tally.versions[0]),
            v2: read(&tally.versions[1]),
        }
    }
}

fn line(scene: &Scene, now: &Counts, before: &Counts, period: Duration) -> String {
    let (v1, v2) = (now.v1 - before.v1, now.v2 - before.v2);
    let rate = (now.sent - before.sent) as f64 / period.as_secs_f64();
    let (ready, wanted) = scene.ready;
    format!(
        "{:<9} v1 {} v2  pods ready {ready}/{wanted}  {rate:>5.0} req/s  sent {:>6}  failed {}",
        scene.title,
        versions(v1, v2),
        now.sent,
        now.failed,
    )
}

/// The share of answers by version: `████░░` is two thirds v1.
fn versions(v1: u64, v2: u64) -> String {
    let all = v1 + v2;
    let old = (v1 * BAR + all / 2).checked_div(all).unwrap_or(BAR);
    "█".repeat(old as usize) + &"░".repeat((BAR - old) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_versions_pods_rate_and_failures() {
        let scene = Scene { title: "v1 -> v2", ready: (3, 3) };
        let now = Counts { sent: 700, failed: 0, v1: 500, v2: 200 };
        let before = Counts { sent: 100, failed: 0, v1: 100, v2: 0 };
        let text = line(&scene, &now, &before, Duration::from_secs(1));
        assert_eq!(
            text,
            "v1 -> v2  v1 ████████████████░░░░░░░░ v2  pods ready 3/3    600 req/s  sent    700  failed 0"
        );
    }

    #[test]
    fn the_bar_has_one_width_whatever_the_counts() {
        for (v1, v2) in [(0, 0), (1, 0), (0, 1), (1, 1000), (1000, 1), (7, 3)] {
            assert_eq!(versions(v1, v2).chars().count(), BAR as usize, "{v1} {v2}");
        }
    }
}
