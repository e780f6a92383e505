//! Probes: which ones run, when, what their results mean, and how they are made.
//!
//! * [`wanted`]: which probes a pod's containers need right now; pure.
//! * [`ticks`]: when a probe is due; pure.
//! * [`verdict`]: what a row of results means; pure.
//! * [`prober`]: one probe's task, and one attempt by [`http`], [`tcp`], [`grpc`] or exec.

pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod prober;
pub(crate) mod tcp;
pub(crate) mod ticks;
pub(crate) mod verdict;

use crate::pod::snapshot::PodSnapshot;
use k8s_openapi::api::core::v1::{Container, Probe};
use std::collections::BTreeSet;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `startupProbe`: until it succeeds once, the others wait.
    Startup,
    /// `livenessProbe`: restart when it fails.
    Liveness,
    /// `readinessProbe`: no traffic while it fails.
    Readiness,
}

impl Kind {
    /// Its name at the beginning of an event's message.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }

    /// The probe of this kind in a container's spec.
    pub(crate) fn of(self, spec: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => spec.startup_probe.as_ref(),
            Kind::Liveness => spec.liveness_probe.as_ref(),
            Kind::Readiness => spec.readiness_probe.as_ref(),
        }
    }
}

/// One running probe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProbeKey {
    /// Name of the container.
    pub(crate) container: String,
    /// The instance it looks at; another instance is another probe.
    pub(crate) instance: String,
    /// What for.
    pub(crate) kind: Kind,
}

/// What one attempt found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All is well.
    Success,
    /// All is well, but for this.
    Warning(String),
    /// It is not, and why.
    Failure(String),
    /// It could not be found out, and why: counts neither way.
    Unknown(String),
}

impl From<Result<(), String>> for Found {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Found::Failure, |()| Found::Success)
    }
}

/// What a probe has to tell.
#[derive(Clone, Debug)]
pub(crate) struct ProbeReport {
    /// Which probe.
    pub(crate) key: ProbeKey,
    /// The verdict, if this attempt changed it.
    pub(crate) verdict: Option<bool>,
    /// What this attempt found.
    pub(crate) found: Found,
}

/// The probes that should run. Of a pod that is ending only readiness: others may still ask for it, while its liveness
/// must not restart it.
pub(crate) fn wanted(snapshot: &PodSnapshot) -> BTreeSet<ProbeKey> {
    let mut wanted = BTreeSet::new();
    let ends = snapshot.termination.is_some();
    for spec in snapshot.all_containers() {
        let Some(facts) =
            snapshot.facts(&spec.name).filter(|facts| facts.is_running() && (ends || facts.kill.is_none()))
        else {
            continue;
        };
        let Some(instance) = snapshot.instance(&spec.name) else { continue };
        let kinds: &[Kind] = match (&spec.startup_probe, facts.probes.startup) {
            (Some(_), None) => &[Kind::Startup],
            (Some(_), Some(false)) => &[],
            _ => &[Kind::Liveness, Kind::Readiness],
        };
        for kind in kinds.iter().filter(|kind| kind.of(spec).is_some()) {
            // A failed liveness probe rests until there is another instance.
            if *kind == Kind::Liveness && facts.probes.liveness == Some(false) {
                continue;
            }
            if ends && *kind != Kind::Readiness {
                continue;
            }
            wanted.insert(ProbeKey {
                container: spec.name.clone(),
                instance: instance.id.clone(),
                kind: *kind,
            });
        }
    }
    wanted
}
