//! Lifecycle hooks: `postStart` and `preStop`.

use crate::probe::{http, prober};
use crate::shared::Shared;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use std::net::IpAddr;
use std::time::Duration;

/// Runs a hook for at most `limit`.
///
/// # Errors
/// Why it failed, for people.
pub(crate) async fn run(
    hook: &LifecycleHandler,
    shared: &Shared,
    spec: &Container,
    container_id: &str,
    address: Option<IpAddr>,
    limit: Duration,
) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        let command = action.command.clone().unwrap_or_default();
        return prober::exec(shared.runtime.as_ref(), container_id, &command, limit).await;
    }
    if let Some(action) = &hook.http_get {
        return http::Request::new(action, spec, address)?.probe(limit).await;
    }
    if let Some(action) = &hook.sleep {
        let wanted = Duration::from_secs(action.seconds.max(0).unsigned_abs());
        tokio::time::sleep(wanted.min(limit)).await;
    }
    Ok(())
}
