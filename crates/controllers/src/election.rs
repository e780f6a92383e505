//! Leader election: of several instances of the controllers one works, and the others wait.
//!
//! As upstream has it (`coordination.k8s.io/v1` Lease, `leaderelection` in client-go): the leader renews a lease; who
//! has seen nobody renew it for its whole duration, by the own clock, takes it over. A leader that cannot renew stops
//! some time before others may take over, so that two never work at once, as long as clocks run at the same speed.

use crate::plan::{Note, reference_to};
use crate::recorder::Recorder;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The source of its events.
const COMPONENT: &str = "kube-controller-manager";
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Which lease is held by whom, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who this is; no two instances may have the same.
    pub identity: String,
    /// `--leader-elect-lease-duration`: how long nobody else may take the lease over after it was renewed.
    pub duration: Duration,
    /// `--leader-elect-renew-deadline`: how long a leader goes on without having renewed. Shorter than `duration`.
    pub deadline: Duration,
    /// `--leader-elect-retry-period`: between any two attempts.
    pub retry: Duration,
}

impl Settings {
    /// Upstream's: lease `kube-controller-manager` in `kube-system`, 15, 10 and 2 seconds. The same lease as upstream's
    /// controller-manager, so that it and ours do not work at once either.
    pub fn new(identity: impl Into<String>) -> Self {
        Self {
            namespace: "kube-system".into(),
            name: COMPONENT.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }

    /// The same lease with 60, 40 and 10 seconds, for controllers beside their API server: it is there whenever they
    /// are, and an idle cluster should write little.
    pub fn beside_the_server(identity: impl Into<String>) -> Self {
        Self {
            duration: Duration::from_secs(60),
            deadline: Duration::from_secs(40),
            retry: Duration::from_secs(10),
            ..Self::new(identity)
        }
    }
}

/// What to do about the lease.
#[derive(Debug)]
enum Move {
    Create(Box<Lease>),
    Update(Box<Lease>),
    /// This one holds it.
    Wait(String),
}

/// The lease as last seen, and since when it has been so.
struct View {
    lease: Option<Lease>,
    since: Instant,
}

impl View {
    fn look(&mut self, lease: Option<Lease>, now: Instant) {
        let record = |lease: &Option<Lease>| lease.as_ref().and_then(|lease| lease.spec.clone());
        if record(&self.lease) != record(&lease) {
            self.since = now;
        }
        self.lease = lease;
    }

    /// Pure. What counts is how long the lease has looked the same here, not the times written in it: clocks differ.
    fn decide(&self, settings: &Settings, now: Instant, wall: Timestamp) -> Move {
        let time = || Some(MicroTime(wall));
        let fresh = LeaseSpec {
            holder_identity: Some(settings.identity.clone()),
            lease_duration_seconds: i32::try_from(settings.duration.as_secs().max(1)).ok(),
            acquire_time: time(),
            renew_time: time(),
            lease_transitions: Some(0),
            ..LeaseSpec::default()
        };
        let Some(lease) = &self.lease else {
            let metadata = ObjectMeta {
                name: Some(settings.name.clone()),
                namespace: Some(settings.namespace.clone()),
                ..ObjectMeta::default()
            };
            return Move::Create(Box::new(Lease { metadata, spec: Some(fresh) }));
        };
        let before = lease.spec.clone().unwrap_or_default();
        let holder = before.holder_identity.unwrap_or_default();
        let is_ours = holder == settings.identity;
        // The holder may work as long as it said it would, and no longer, whatever we ask for ourselves.
        let said = before.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = said.filter(|seconds| *seconds > 0).map_or(settings.duration, Duration::from_secs);
        if !holder.is_empty() && !is_ours && now < self.since + duration {
            return Move::Wait(holder);
        }
        let transitions = before.lease_transitions.unwrap_or(0);
        let spec = match is_ours {
            true => {
                LeaseSpec { acquire_time: before.acquire_time, lease_transitions: Some(transitions), ..fresh }
            }
            false => LeaseSpec { lease_transitions: Some(transitions.saturating_add(1)), ..fresh },
        };
        Move::Update(Box::new(Lease { metadata: lease.metadata.clone(), spec: Some(spec) }))
    }
}

/// An instance that wants to lead.
pub struct Election {
    leases: Api<Lease>,
    settings: Settings,
    view: View,
    /// When the request that renewed the lease last was made.
    renewed: Instant,
    recorder: Recorder,
    tasks: TaskTracker,
    _events: tokio_util::sync::DropGuard,
}

impl Election {
    /// Nothing is asked yet.
    pub fn new(client: Client, settings: Settings) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let recorder = Recorder::start(client.clone(), COMPONENT, Timestamp::now, &tasks, &stop);
        let now = Instant::now();
        Self {
            leases: Api::namespaced(client, &settings.namespace),
            settings,
            view: View { lease: None, since: now },
            renewed: now,
            recorder,
            tasks,
            _events: stop.drop_guard(),
        }
    }

    /// Resolves when this instance leads. Calls `other` with the name of whoever does meanwhile, once for each.
    pub async fn acquire(&mut self, mut other: impl FnMut(&str)) {
        let mut told = String::new();
        loop {
            match self.attempt().await {
                Ok(None) => break,
                Ok(Some(holder)) if holder != told => {
                    other(&holder);
                    told = holder;
                }
                Ok(Some(_)) => {}
                Err(error) => tracing::warn!(lease = self.settings.name, error, "leader election"),
            }
            // Not all at the same moment: a little over one to a little over two periods, as upstream.
            let random = std::hash::RandomState::new().build_hasher().finish();
            let jitter = self.settings.retry.mul_f64(1.2 * (random as f64 / u64::MAX as f64));
            tokio::time::sleep(self.settings.retry + jitter).await;
        }
        self.tell("became leader");
    }

    /// Renews the lease as long as possible. Resolves when this instance must stop at once: the lease is another's, or
    /// was not renewed in time.
    pub async fn lost(&mut self) {
        loop {
            let deadline = self.renewed + self.settings.deadline;
            let renewed = async {
                loop {
                    tokio::time::sleep(self.settings.retry).await;
                    match self.attempt().await {
                        Ok(None) => return true,
                        Ok(Some(_)) => return false,
                        Err(error) => tracing::warn!(lease = self.settings.name, error, "renewing the lease"),
                    }
                }
            };
            match tokio::time::timeout_at(deadline, renewed).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return self.tell("stopped leading"),
            }
        }
    }

    /// Gives the lease back, so that another need not wait until it expires. Call this after the work has ended.
    pub async fn release(self) {
        if let Some(lease) = self.view.lease.clone()
            && let Some(spec) = lease.spec.as_ref()
            && spec.holder_identity.as_ref() == Some(&self.settings.identity)
        {
            let now = Some(MicroTime(Timestamp::now()));
            let spec = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                acquire_time: now.clone(),
                renew_time: now,
                lease_transitions: spec.lease_transitions,
                ..LeaseSpec::default()
            };
            let free = Lease { metadata: lease.metadata, spec: Some(spec) };
            self.tell("stopped leading");
            let params = PostParams::default();
            let replaced = self.leases.replace(&self.settings.name, &params, &free);
            match tokio::time::timeout(FAREWELL, replaced).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(%error, "releasing the lease"),
                Err(_) => tracing::debug!("releasing the lease took too long"),
            }
        }
        let Self { recorder, tasks, .. } = self;
        drop(recorder);
        tasks.close();
        let _ = tokio::time::timeout(FAREWELL, tasks.wait()).await;
    }

    /// Tries once to take or renew the lease. None when it is ours, else who holds it.
    async fn attempt(&mut self) -> Result<Option<String>, String> {
        let began = Instant::now();
        let attempt = tokio::time::timeout(self.settings.deadline / 2, self.attempt_without_limit());
        let outcome = attempt.await.map_err(|_| "no answer in time".to_owned())?;
        if let Ok(None) = outcome {
            self.renewed = began;
        }
        outcome.map_err(|error| error.to_string())
    }

    async fn attempt_without_limit(&mut self) -> kube::Result<Option<String>> {
        let found = self.leases.get_opt(&self.settings.name).await?;
        self.view.look(found, Instant::now());
        let params = PostParams::default();
        let lease = match self.view.decide(&self.settings, Instant::now(), Timestamp::now()) {
            Move::Wait(holder) => return Ok(Some(holder)),
            Move::Create(lease) => self.leases.create(&params, &lease).await?,
            Move::Update(lease) => self.leases.replace(&self.settings.name, &params, &lease).await?,
        };
        self.view.look(Some(lease), Instant::now());
        Ok(None)
    }

    fn tell(&self, what: &str) {
        if let Some(lease) = &self.view.lease {
            let message = format!("{} {what}", self.settings.identity);
            let note = Note::normal(&reference_to(lease), "LeaderElection", message.clone());
            self.recorder.record(&note, &message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn held(holder: &str, renewed: i64) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(if holder == "slow" { 60 } else { 15 }),
            acquire_time: Some(MicroTime(at(0))),
            renew_time: Some(MicroTime(at(renewed))),
            lease_transitions: Some(4),
            ..LeaseSpec::default()
        };
        let metadata = ObjectMeta { resource_version: Some("7".into()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(spec) }
    }

    /// The lease looked like this `seconds` ago, and ever since.
    fn decided(lease: Option<Lease>, seconds: u64) -> Move {
        let now = Instant::now();
        let mut view = View { lease: None, since: now };
        view.look(lease.clone(), now);
        let later = now + Duration::from_secs(seconds);
        view.look(lease, later);
        view.decide(&Settings::new("me"), later, at(500))
    }

    #[test]
    fn a_lease_that_is_missing_is_created() {
        let Move::Create(lease) = decided(None, 0) else { panic!("not created") };
        let spec = lease.spec.unwrap();
        assert_eq!(lease.metadata.name.as_deref(), Some("kube-controller-manager"));
        assert_eq!(lease.metadata.namespace.as_deref(), Some("kube-system"));
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("me"), Some(15)));
        assert_eq!((spec.acquire_time, spec.lease_transitions), (spec.renew_time, Some(0)));
    }

    #[rstest]
    #[case::of_another_that_renews_it("other", 14, None)]
    #[case::of_another_that_does_not("other", 15, Some((5, at(500))))]
    #[case::of_another_that_said_longer("slow", 59, None)]
    #[case::of_another_that_said_longer_and_is_gone("slow", 60, Some((5, at(500))))]
    #[case::given_back("", 0, Some((5, at(500))))]
    #[case::our_own("me", 2, Some((4, at(0))))]
    fn a_lease_is_taken_when_nobody_holds_it_and_kept_when_it_is_ours(
        #[case] holder: &str,
        #[case] seconds: u64,
        #[case] expected: Option<(i32, Timestamp)>,
    ) {
        // The time written in it is long past: the other's clock may be wrong.
        match decided(Some(held(holder, -9000)), seconds) {
            Move::Update(lease) => {
                let spec = lease.spec.unwrap();
                assert_eq!(spec.renew_time, Some(MicroTime(at(500))));
                let taken = (spec.lease_transitions.unwrap(), spec.acquire_time.unwrap().0);
                assert_eq!(Some(taken), expected);
                assert_eq!(lease.metadata.resource_version.as_deref(), Some("7"), "only as it was seen");
            }
            Move::Wait(waited_for) => assert_eq!((waited_for.as_str(), expected), (holder, None)),
            Move::Create(_) => panic!("it is there"),
        }
    }

    #[test]
    fn who_said_a_short_time_is_not_waited_for_longer_than_that() {
        // Upstream's controller-manager says 15 s; ours beside the server asks for 60 s.
        let now = Instant::now();
        let mut view = View { lease: None, since: now };
        view.look(Some(held("upstream", 0)), now);
        let settings = Settings::beside_the_server("me");
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(matches!(view.decide(&settings, after(14), at(0)), Move::Wait(_)));
        assert!(matches!(view.decide(&settings, after(15), at(0)), Move::Update(_)));
    }

    #[test]
    fn every_renewal_by_another_starts_the_wait_anew() {
        let now = Instant::now();
        let mut view = View { lease: Some(held("other", 0)), since: now };
        let later = now + Duration::from_secs(14);
        view.look(Some(held("other", 2)), later);
        let settings = Settings::new("me");
        assert!(matches!(view.decide(&settings, later + Duration::from_secs(14), at(0)), Move::Wait(_)));
        assert!(matches!(view.decide(&settings, later + Duration::from_secs(15), at(0)), Move::Update(_)));
    }
}
