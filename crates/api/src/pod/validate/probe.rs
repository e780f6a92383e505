//! Probes, lifecycle hooks and what both of them run.

use super::{list, port, text};
use crate::field::{self, Errors, FieldError, Path};
use crate::pod::workload::not_negative;
use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction,
    TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Everything wrong with the probes and hooks of a container that may have them.
pub(super) fn validate_all(container: &Container, grace_period: Option<i64>, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(lifecycle) = &container.lifecycle {
        errors.extend(validate_lifecycle(lifecycle, grace_period, &path.child("lifecycle")));
    }
    if let Some(probe) = &container.liveness_probe {
        let at = path.child("livenessProbe");
        errors.extend(validate_probe(probe, &at));
        errors.extend(succeeds_at_once(probe, &at));
    }
    if let Some(probe) = &container.readiness_probe {
        let at = path.child("readinessProbe");
        errors.extend(validate_probe(probe, &at));
        if let Some(seconds) = probe.termination_grace_period_seconds {
            let at = at.child("terminationGracePeriodSeconds");
            errors.push(field::invalid(&at, seconds, "must not be set for readinessProbes"));
        }
    }
    if let Some(probe) = &container.startup_probe {
        let at = path.child("startupProbe");
        errors.extend(validate_probe(probe, &at));
        errors.extend(succeeds_at_once(probe, &at));
    }
    errors
}

fn succeeds_at_once(probe: &Probe, path: &Path) -> Option<FieldError> {
    let threshold = probe.success_threshold.unwrap_or(0);
    (threshold != 1).then(|| field::invalid(&path.child("successThreshold"), threshold, "must be 1"))
}

fn validate_probe(probe: &Probe, path: &Path) -> Errors {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    let mut errors = handler.validate(None, path);
    let numbers = [
        (probe.initial_delay_seconds, "initialDelaySeconds"),
        (probe.timeout_seconds, "timeoutSeconds"),
        (probe.period_seconds, "periodSeconds"),
        (probe.success_threshold, "successThreshold"),
        (probe.failure_threshold, "failureThreshold"),
    ];
    for (number, field) in numbers {
        errors.extend(not_negative(number, &path.child(field)));
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        let at = path.child("terminationGracePeriodSeconds");
        errors.push(field::invalid(&at, seconds, "must be greater than 0"));
    }
    errors
}

fn validate_lifecycle(lifecycle: &Lifecycle, grace_period: Option<i64>, path: &Path) -> Errors {
    let hooks = [(&lifecycle.post_start, "postStart"), (&lifecycle.pre_stop, "preStop")];
    let given = hooks.into_iter().filter_map(|(hook, field)| Some((hook.as_ref()?, field)));
    given
        .flat_map(|(hook, field)| Handler::of_hook(hook).validate(grace_period, &path.child(field)))
        .collect()
}

/// The ways to probe or to notify a container, of which one must be given.
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl<'a> Handler<'a> {
    fn of_hook(hook: &'a LifecycleHandler) -> Self {
        Self {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        }
    }

    /// The first way given counts; the others are too many.
    fn validate(&self, grace_period: Option<i64>, path: &Path) -> Errors {
        let checked = [
            ("exec", self.exec.map(|exec| validate_exec(exec, &path.child("exec")))),
            ("httpGet", self.http_get.map(|get| validate_http_get(get, &path.child("httpGet")))),
            ("tcpSocket", self.tcp_socket.map(|tcp| validate_port(&tcp.port, &path.child("tcpSocket")))),
            ("grpc", self.grpc.map(|grpc| validate_port(&IntOrString::Int(grpc.port), &path.child("grpc")))),
            ("sleep", self.sleep.map(|sleep| validate_sleep(sleep, grace_period, &path.child("sleep")))),
        ];
        let mut given = checked.into_iter().filter_map(|(field, errors)| Some((field, errors?)));
        let Some((_, mut errors)) = given.next() else {
            return vec![field::required(path, "must specify a handler type")];
        };
        let too_many = "may not specify more than 1 handler type";
        errors.extend(given.map(|(field, _)| field::forbidden(&path.child(field), too_many)));
        errors
    }
}

fn validate_exec(exec: &ExecAction, path: &Path) -> Errors {
    if list(&exec.command).is_empty() {
        return vec![field::required(&path.child("command"), "")];
    }
    Errors::new()
}

fn validate_http_get(get: &HTTPGetAction, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if text(&get.path).is_empty() {
        errors.push(field::required(&path.child("path"), ""));
    }
    errors.extend(validate_port(&get.port, path));
    let scheme = text(&get.scheme);
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.push(field::not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]));
    }
    for header in list(&get.http_headers) {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if header.name.is_empty() || !header.name.bytes().all(fits) {
            let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
                          'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
            errors.push(field::invalid(&path.child("httpHeaders"), &header.name, detail));
        }
    }
    errors
}

fn validate_port(port: &IntOrString, path: &Path) -> Errors {
    port::validate_number_or_name(port, &path.child("port"))
}

fn validate_sleep(sleep: &SleepAction, grace_period: Option<i64>, path: &Path) -> Errors {
    match grace_period {
        Some(period) if sleep.seconds < 0 || sleep.seconds > period => {
            let detail =
                format!("must be non-negative and less than terminationGracePeriodSeconds ({period})");
            vec![field::invalid(path, sleep.seconds, &detail)]
        }
        _ => Errors::new(),
    }
}
