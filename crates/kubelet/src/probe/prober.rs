//! The task of one probe, and one attempt.

use super::verdict::Row;
use super::{Kind, ProbeKey, ProbeReport, grpc, http, tcp, ticks::Ticks};
use crate::clock::{Clock, between};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use sagong_runtime::{Runtime, RuntimeError};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// All that a probe needs to know of its container.
pub(crate) struct Subject {
    /// Which probe.
    pub(crate) key: ProbeKey,
    /// The container.
    pub(crate) spec: Container,
    /// The pod's address.
    pub(crate) address: Option<IpAddr>,
    /// When the container started.
    pub(crate) started: Timestamp,
    /// What holds before the first result, if it is known.
    pub(crate) verdict: Option<bool>,
}

/// Probes until it is dropped, reporting each change and each failure. `clock` is one that nobody sets.
pub(crate) async fn run(
    subject: Subject,
    clock: Clock,
    runtime: Arc<dyn Runtime>,
    reports: UnboundedSender<ProbeReport>,
) {
    let Some(probe) = subject.key.kind.of(&subject.spec) else { return };
    let mut ticks = Ticks::new(subject.key.kind, probe, subject.started, clock.now());
    let mut row = Row::new(subject.key.kind, probe, subject.verdict);
    let mut last = None;
    loop {
        let tick = ticks.next(last, clock.now());
        tokio::time::sleep(between(clock.now(), tick.at)).await;
        last = Some(tick.at);
        let result = attempt(&subject, probe, runtime.as_ref()).await;
        if result.is_err() && !tick.counts {
            continue;
        }
        if result.is_ok() {
            ticks.settle();
        }
        let report = ProbeReport {
            key: subject.key.clone(),
            verdict: row.note(result.is_ok()),
            failure: result.err(),
        };
        let is_news = report.verdict.is_some() || report.failure.is_some();
        if is_news && reports.send(report).is_err() {
            return;
        }
    }
}

/// One attempt, bounded by `timeoutSeconds`.
async fn attempt(subject: &Subject, probe: &Probe, runtime: &dyn Runtime) -> Result<(), String> {
    let seconds = probe.timeout_seconds.unwrap_or(1).max(1).unsigned_abs();
    let timeout = Duration::from_secs(seconds.into());
    if let Some(action) = &probe.http_get {
        return http::Request::new(action, &subject.spec, subject.address)?.probe(timeout).await;
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|host| !host.is_empty());
        let address =
            host.and_then(|host| host.parse().ok()).or(subject.address).ok_or("pod has no address")?;
        let target = SocketAddr::new(address, http::port(&action.port, &subject.spec)?);
        return match tokio::time::timeout(timeout, tcp::probe(target)).await {
            Ok(result) => result,
            Err(_) => Err(format!("dial tcp {target}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.exec {
        let command = action.command.clone().unwrap_or_default();
        return exec(runtime, &subject.key.instance, &command, timeout).await;
    }
    let action = probe.grpc.as_ref().ok_or("missing probe handler")?;
    let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
    let target = SocketAddr::new(subject.address.ok_or("pod has no address")?, port);
    grpc::probe(target, action.service.as_deref().unwrap_or_default(), timeout).await
}

/// Runs a command in a container; exit code 0 is a success.
pub(crate) async fn exec(
    runtime: &dyn Runtime,
    instance: &str,
    command: &[String],
    timeout: Duration,
) -> Result<(), String> {
    match runtime.exec(instance, command, timeout).await {
        Ok(output) if output.exit_code == 0 => Ok(()),
        Ok(output) => {
            let text = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
            let text: String = String::from_utf8_lossy(text).chars().take(10 * 1024).collect();
            if text.is_empty() {
                return Err(format!("command exited with {}", output.exit_code));
            }
            Err(text)
        }
        Err(RuntimeError::TimedOut { .. }) => {
            Err(format!("command timed out: {:?} timed out after {}s", command.join(" "), timeout.as_secs()))
        }
        Err(error) => Err(error.to_string()),
    }
}

impl ProbeReport {
    /// The event's message for a failed attempt.
    pub(crate) fn message(&self) -> Option<String> {
        Some(format!("{} probe failed: {}", self.key.kind.title(), self.failure.as_ref()?))
    }

    /// Writes the verdict where the plan reads it.
    pub(crate) fn apply(&self, verdicts: &mut crate::pod::snapshot::Verdicts) {
        let place = match self.key.kind {
            Kind::Startup => &mut verdicts.startup,
            Kind::Liveness => &mut verdicts.liveness,
            Kind::Readiness => &mut verdicts.readiness,
        };
        *place = self.verdict.or(*place);
    }
}
