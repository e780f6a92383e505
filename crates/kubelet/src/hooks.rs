//! Lifecycle hooks: `postStart` and `preStop`.

use crate::pod::messages::pod_name;
use crate::probe::{http, prober};
use crate::shared::Shared;
use k8s_openapi::api::core::v1::{Container, ExecAction, HTTPGetAction, LifecycleHandler, Pod};
use sagong_runtime::RuntimeError;
use std::net::IpAddr;
use std::time::Duration;

/// Where a hook runs.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The pod.
    pub(crate) pod: &'a Pod,
    /// Its address.
    pub(crate) address: Option<IpAddr>,
    /// The container.
    pub(crate) spec: &'a Container,
    /// Its running instance.
    pub(crate) instance: &'a str,
}

/// Runs a hook for at most `limit`.
///
/// # Errors
/// Why it failed, as upstream tells it.
pub(crate) async fn run(
    hook: &LifecycleHandler,
    shared: &Shared,
    place: Place<'_>,
    limit: Duration,
) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        return exec(action, shared, place, limit).await;
    }
    if let Some(action) = &hook.http_get {
        return get(action, place, limit).await;
    }
    if let Some(action) = &hook.sleep {
        let wanted = Duration::from_secs(action.seconds.max(0).unsigned_abs());
        tokio::time::sleep(wanted.min(limit)).await;
    }
    Ok(())
}

async fn exec(action: &ExecAction, shared: &Shared, place: Place<'_>, limit: Duration) -> Result<(), String> {
    let command = action.command.clone().unwrap_or_default();
    let words = command.join(" ");
    let (error, said) = match shared.runtime.exec(place.instance, &command, limit).await {
        Ok(output) if output.exit_code == 0 => return Ok(()),
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            (format!("command '{words}' exited with {}: {errors}", output.exit_code), prober::said(&output))
        }
        Err(RuntimeError::TimedOut { .. }) => {
            (format!("command {words:?} timed out after {}s", limit.as_secs()), String::new())
        }
        Err(error) => (error.to_string(), String::new()),
    };
    let (container, pod) = (&place.spec.name, pod_name(place.pod));
    Err(format!(
        "Exec lifecycle hook ([{words}]) for Container {container:?} in Pod {pod:?} failed - error: {error}, \
         message: {said:?}"
    ))
}

async fn get(action: &HTTPGetAction, place: Place<'_>, limit: Duration) -> Result<(), String> {
    let failed = |error: String| {
        let path = action.path.as_deref().unwrap_or_default();
        let (container, pod) = (&place.spec.name, pod_name(place.pod));
        format!(
            "HTTP lifecycle hook ({path}) for Container {container:?} in Pod {pod:?} failed - error: {error}"
        )
    };
    let request = http::Request::new(action, place.spec, place.address, http::LIFECYCLE).map_err(failed)?;
    request.deliver(limit).await.map_err(failed)
}
