//! What Pod and pod templates share: defaults, validation, printing of the pod specification.
//!
//! * [`defaults`] and [`volume_defaults`]: what is filled in.
//! * [`qos`]: the quality-of-service class.
//! * [`print`] and [`status`]: table cells.
//! * [`validate`]: what can be wrong; [`warnings`]: what is dubious.
//! * [`workload`]: what the kinds that make pods from a template share.

pub mod defaults;
pub mod print;
pub mod qos;
mod semantic;
pub mod status;
pub mod validate;
pub mod volume_defaults;
pub mod warnings;
pub mod workload;

pub use semantic::is_same;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer};

/// An ephemeral container as the container it is like, so that one set of rules serves both.
pub fn as_container(container: &EphemeralContainer) -> Container {
    let c = container.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        lifecycle: c.lifecycle,
        liveness_probe: c.liveness_probe,
        name: c.name,
        ports: c.ports,
        readiness_probe: c.readiness_probe,
        resize_policy: c.resize_policy,
        resources: c.resources,
        restart_policy: c.restart_policy,
        security_context: c.security_context,
        startup_probe: c.startup_probe,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
    }
}
