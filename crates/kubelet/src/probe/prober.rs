//! The task of one probe, and one attempt.

use super::verdict::Row;
use super::{Found, Kind, ProbeKey, ProbeReport, grpc, http, tcp, ticks::Ticks};
use crate::clock::{Clock, between};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe, TCPSocketAction};
use sagong_runtime::{ExecOutput, Runtime, RuntimeError};
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
        let found = attempt(&subject, probe, runtime.as_ref()).await;
        let passed = matches!(found, Found::Success | Found::Warning(_));
        if !passed && !tick.counts {
            continue;
        }
        if passed {
            ticks.settle();
        }
        // What could not be asked says nothing of the container.
        let verdict = if matches!(found, Found::Unknown(_)) { None } else { row.note(passed) };
        let report = ProbeReport { key: subject.key.clone(), verdict, found };
        let is_news = report.verdict.is_some() || report.found != Found::Success;
        if is_news && reports.send(report).is_err() {
            return;
        }
    }
}

/// One attempt, bounded by `timeoutSeconds`.
async fn attempt(subject: &Subject, probe: &Probe, runtime: &dyn Runtime) -> Found {
    let seconds = probe.timeout_seconds.unwrap_or(1).max(1).unsigned_abs();
    let timeout = Duration::from_secs(seconds.into());
    if let Some(action) = &probe.http_get {
        return match http::Request::new(action, &subject.spec, subject.address, http::PROBE) {
            Ok(request) => request.probe(timeout).await,
            Err(error) => Found::Unknown(error),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        return open(subject, action, timeout).await.unwrap_or_else(Found::Unknown);
    }
    if let Some(action) = &probe.exec {
        let command = action.command.clone().unwrap_or_default();
        return exec(runtime, &subject.key.instance, &command, timeout).await;
    }
    let Some(action) = &probe.grpc else { return Found::Unknown("missing probe handler".into()) };
    let (Some(address), Ok(port)) = (subject.address, u16::try_from(action.port)) else {
        return Found::Unknown(format!("invalid port number: {}", action.port));
    };
    let target = SocketAddr::new(address, port);
    grpc::probe(target, action.service.as_deref().unwrap_or_default(), timeout).await.into()
}

/// Opens a connection.
async fn open(subject: &Subject, action: &TCPSocketAction, timeout: Duration) -> Result<Found, String> {
    let port = http::port(&action.port, &subject.spec)?;
    let host = action.host.as_deref().filter(|host| !host.is_empty());
    let known = match host {
        Some(host) => host.parse().ok(),
        None => Some(subject.address.ok_or("pod has no address")?),
    };
    let opened = async {
        let target = tcp::resolve(host.unwrap_or_default(), known, port).await?;
        tcp::probe(target).await
    };
    let place = host.map(str::to_owned).or(known.map(|address| address.to_string())).unwrap_or_default();
    let late = || format!("dial tcp {place}:{port}: i/o timeout");
    Ok(tokio::time::timeout(timeout, opened).await.unwrap_or_else(|_| Err(late())).into())
}

/// Runs a command in a container; exit code 0 is a success.
async fn exec(runtime: &dyn Runtime, instance: &str, command: &[String], timeout: Duration) -> Found {
    match runtime.exec(instance, command, timeout).await {
        Ok(output) if output.exit_code == 0 => Found::Success,
        Ok(output) => Found::Failure(said(&output)),
        Err(RuntimeError::TimedOut { .. }) => Found::Failure(format!(
            "command timed out: {:?} timed out after {}s",
            command.join(" "),
            timeout.as_secs()
        )),
        // It was not even executed.
        Err(error) => Found::Unknown(error.to_string()),
    }
}

/// The beginning of what a command wrote: its output, and then its errors.
pub(crate) fn said(output: &ExecOutput) -> String {
    const LIMIT: usize = 10 * 1024;
    let bytes: Vec<u8> = output.stdout.iter().chain(&output.stderr).copied().take(LIMIT).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl ProbeReport {
    /// Reason and message of the event, if this attempt deserves one.
    pub(crate) fn event(&self) -> Option<(&'static str, String)> {
        let title = self.key.kind.title();
        match &self.found {
            Found::Success => None,
            Found::Warning(what) => Some(("ProbeWarning", format!("{title} probe warning: {what}"))),
            Found::Failure(why) => Some(("Unhealthy", format!("{title} probe failed: {why}"))),
            Found::Unknown(why) => {
                Some(("Unhealthy", format!("{title} probe errored and resulted in unknown state: {why}")))
            }
        }
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
