//! What a run begins with, and what the user does in it.

use crate::choices::Choices;
use crate::ground::Ground;
use crate::node::{CONTAINER, MISSING, NEVER_READY};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use sagong_api::kind::{Part, TypedObject};
use sagong_controllers::cache::Key;
use sagong_controllers::deployment::template_hash;
use sagong_controllers::plan::{Deletion, KindRef, PatchKind};
use serde_json::{Value, json};

/// The namespace everything happens in.
pub(crate) const NAMESPACE: &str = "default";
/// The name of the Deployment and its Service.
pub(crate) const NAME: &str = "kubia";
/// What foreign objects are called.
pub(crate) const FOREIGN: &str = "foreign";

/// What a run is about. Most are about everything at once, which finds what nobody thought of; what takes one thing after
/// the other without anything in between is rare in them, and has runs of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Focus {
    Everything,
    /// Versions that work are rolled out and back, on pods that behave, with minReadySeconds.
    Rollouts,
    /// Pods are taken aside while others come and go.
    Aside,
}

/// What a run begins with.
pub(crate) struct Scenario {
    pub(crate) focus: Focus,
    pub(crate) nodes: u8,
    pub(crate) deployment: Value,
    /// A ReplicaSet of nobody runs beside the Deployment.
    pub(crate) has_bare_set: bool,
    /// All is up and quiet before anything goes wrong.
    pub(crate) begins_settled: bool,
    /// Steps with faults and a busy user.
    pub(crate) steps: usize,
    /// The user does something once in so many steps.
    pub(crate) user: usize,
}

impl Scenario {
    pub(crate) fn draw(choices: &mut Choices) -> Self {
        let focus = match choices.below(8) {
            6 => Focus::Rollouts,
            7 => Focus::Aside,
            _ => Focus::Everything,
        };
        let replicas = 1 + choices.below(5);
        let strategy = strategy(choices);
        let waits: &[i32] = if focus == Focus::Rollouts { &[5] } else { &[0, 0, 5] };
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {
                "replicas": replicas,
                "strategy": strategy,
                "minReadySeconds": choices.pick(waits),
                "revisionHistoryLimit": choices.pick(&[10, 2, 0]),
                "progressDeadlineSeconds": choices.pick(&[600, 30]),
                "selector": {"matchLabels": {"app": NAME}},
                "template": {
                    "metadata": {"labels": {"app": NAME}},
                    "spec": {
                        "terminationGracePeriodSeconds": choices.pick(&[30, 2]),
                        "containers": [{
                            "name": CONTAINER, "image": "kubia:v1",
                            "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
                            "resources": {"requests": {"cpu": choices.pick(&["10m", "700m"])}},
                        }],
                    },
                },
            },
        });
        Self {
            focus,
            nodes: u8::try_from(1 + choices.below(3)).unwrap_or(1),
            deployment,
            has_bare_set: choices.below(4) == 3,
            begins_settled: choices.below(2) == 0,
            steps: 60 + 80 * choices.below(4),
            user: choices.pick(&[40, 20, 12]),
        }
    }

    /// Creates it all.
    pub(crate) fn set_up(&self, ground: &mut Ground) {
        for index in 1..=self.nodes {
            let node =
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{index}")}});
            create::<Node>(ground, node.clone());
            let mut node = node;
            let cpu = if index == 1 { "16" } else { "1500m" };
            node["status"] = json!({"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}});
            if let Ok(node) = serde_json::from_value::<Node>(node) {
                ground.user(|api| api.update("nodes", Box::new(node), Part::Status));
            }
        }
        create::<Service>(
            ground,
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME, "namespace": NAMESPACE},
                "spec": {"selector": {"app": NAME}, "ports": [{"port": 80, "targetPort": 8080}]},
            }),
        );
        if !self.has_bare_set {
            return create::<Deployment>(ground, self.deployment.clone());
        }
        create::<ReplicaSet>(
            ground,
            json!({
                "apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {"name": "bare", "namespace": NAMESPACE, "labels": {"app": "bare"}},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "bare"}}, "template": {
                    "metadata": {"labels": {"app": "bare"}}, "spec": self.deployment["spec"]["template"]["spec"]}},
            }),
        );
        create::<Deployment>(ground, self.deployment.clone());
    }
}

fn strategy(choices: &mut Choices) -> Value {
    let rolling = |surge: Value, unavailable: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
    match choices.below(6) {
        0 => rolling(json!(1), json!(0)),
        1 => rolling(json!(0), json!(1)),
        2 => rolling(json!("25%"), json!("25%")),
        3 => rolling(json!(2), json!(2)),
        4 => rolling(json!("100%"), json!(0)),
        _ => json!({"type": "Recreate"}),
    }
}

fn create<K: TypedObject>(ground: &mut Ground, value: Value) {
    let kind = KindRef::of::<K>();
    match serde_json::from_value::<K>(value) {
        Ok(object) => {
            ground.user(|api| api.create(kind.plural, Box::new(object)));
        }
        Err(error) => ground.say(|| format!("user: {} is malformed: {error}", kind.plural)),
    }
}

/// The user.
pub(crate) struct User {
    focus: Focus,
    deployment: Value,
    /// Pods were deleted or changed by hand, so that fewer may be available.
    pub(crate) meddled: bool,
    foreign: usize,
}

impl User {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self { focus: scenario.focus, deployment: scenario.deployment.clone(), meddled: false, foreign: 0 }
    }

    /// Does something.
    pub(crate) fn act(&mut self, ground: &mut Ground) {
        let key = Key::new(NAMESPACE, NAME);
        let Some(deployment) = ground.api.get::<Deployment>(&key).cloned() else {
            ground.say(|| "user: creates the deployment again".into());
            return create::<Deployment>(ground, self.deployment.clone());
        };
        let spec = deployment.spec.clone().unwrap_or_default();
        let (what, images): (_, &[&str]) = match self.focus {
            Focus::Everything => {
                (ground.choices.below(14), &["kubia:v2", "kubia:v3", "kubia:v1", NEVER_READY, MISSING])
            }
            Focus::Rollouts => (ground.choices.pick(&[0, 0, 6, 3]), &["kubia:v2", "kubia:v3", "kubia:v1"]),
            Focus::Aside => (ground.choices.pick(&[12, 12, 3, 0]), &["kubia:v2", "kubia:v3", "kubia:v1"]),
        };
        match what {
            0..=2 => {
                let image = ground.choices.pick(images);
                let containers = json!([{"name": CONTAINER, "image": image}]);
                self.patch(ground, "image", json!({"template": {"spec": {"containers": containers}}}));
            }
            3 | 4 => {
                let replicas = ground.choices.below(7);
                self.patch(ground, "replicas", json!({ "replicas": replicas }));
            }
            5 => self.patch(ground, "pause or resume", json!({"paused": spec.paused != Some(true)})),
            6 => self.undo(ground, &deployment),
            7 => {
                let how = ground.choices.pick(&["Background", "Foreground", "Orphan"]);
                ground.say(|| format!("user: deletes the deployment, {how}"));
                let options = Deletion { propagation: Some(how), ..Deletion::default() };
                ground.user(|api| api.delete("deployments", &key, &options));
            }
            8 => {
                let mut strategy = strategy(&mut ground.choices);
                if strategy["type"] == "Recreate" {
                    strategy["rollingUpdate"] = Value::Null;
                }
                self.patch(ground, "strategy", json!({ "strategy": strategy }));
            }
            9 => {
                let seconds = ground.choices.pick(&[0, 5, 10]);
                self.patch(ground, "minReadySeconds", json!({ "minReadySeconds": seconds }));
            }
            10 => self.delete_pod(ground),
            11 => self.create_foreign_pod(ground),
            12 => self.relabel_pod(ground),
            _ => {
                let limit = ground.choices.pick(&[10, 1, 0]);
                self.patch(ground, "history limit", json!({ "revisionHistoryLimit": limit }));
            }
        }
    }

    /// Before the end: what was paused goes on, so that there is something to converge to. Some things stay paused.
    pub(crate) fn finish(&mut self, ground: &mut Ground) {
        if ground.choices.below(3) < 2 {
            self.patch(ground, "resume", json!({ "paused": false }));
        }
    }

    fn patch(&self, ground: &mut Ground, what: &str, spec: Value) {
        ground.say(|| format!("user: {what}: {spec}"));
        let key = Key::new(NAMESPACE, NAME);
        let body = json!({ "spec": spec });
        ground.user(|api| api.patch("deployments", &key, PatchKind::Strategic, &body, Part::Main));
    }

    /// As `kubectl rollout undo`: the template of another ReplicaSet.
    fn undo(&self, ground: &mut Ground, deployment: &Deployment) {
        let uid = deployment.metadata.uid.clone();
        let sets: Vec<&ReplicaSet> = ground
            .api
            .list::<ReplicaSet>()
            .filter(|set| {
                sagong_controllers::cache::controller_of(&set.metadata).map(|o| &o.uid) == uid.as_ref()
            })
            .collect();
        if sets.is_empty() {
            return;
        }
        let chosen = ground.choices.below(sets.len());
        let template = sets[chosen].spec.as_ref().and_then(|spec| spec.template.clone());
        let Some(mut template) = template else { return };
        if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
            labels.remove(template_hash::LABEL);
        }
        let name = sets[chosen].metadata.name.clone().unwrap_or_default();
        ground.say(|| format!("user: undo to {name}"));
        let mut deployment = deployment.clone();
        deployment.spec.get_or_insert_default().template = template;
        ground.user(|api| api.update("deployments", Box::new(deployment), Part::Main));
    }

    fn pods(&self, ground: &Ground) -> Vec<Pod> {
        let is_ours = |pod: &&Pod| {
            pod.metadata
                .labels
                .as_ref()
                .is_some_and(|labels| labels.get("app").is_some_and(|app| app == NAME))
        };
        let is_foreign =
            |pod: &&Pod| pod.metadata.name.as_deref().is_some_and(|name| name.starts_with(FOREIGN));
        ground.api.list::<Pod>().filter(is_ours).filter(|pod| !is_foreign(pod)).cloned().collect()
    }

    fn delete_pod(&mut self, ground: &mut Ground) {
        let pods = self.pods(ground);
        if pods.is_empty() {
            return;
        }
        let pod = &pods[ground.choices.below(pods.len())];
        let grace_period = ground.choices.pick(&[None, Some(0)]);
        self.meddled = true;
        let key = Key::of(&pod.metadata);
        ground.say(|| format!("user: deletes pod {}, grace {grace_period:?}", key.name));
        let options = Deletion { grace_period, ..Deletion::default() };
        ground.user(|api| api.delete("pods", &key, &options));
    }

    fn relabel_pod(&mut self, ground: &mut Ground) {
        let pods = self.pods(ground);
        if pods.is_empty() {
            return;
        }
        let key = Key::of(&pods[ground.choices.below(pods.len())].metadata);
        self.meddled = true;
        ground.say(|| format!("user: takes pod {} aside", key.name));
        let body = json!({"metadata": {"labels": {"app": "debug"}}});
        ground.user(|api| api.patch("pods", &key, PatchKind::Strategic, &body, Part::Main));
    }

    /// A pod that looks like one of the Deployment's: another controller's, nobody's, or only alike.
    fn create_foreign_pod(&mut self, ground: &mut Ground) {
        let pods = self.pods(ground);
        let Some(model) = pods.first() else { return };
        self.foreign += 1;
        let node = ground.api.get::<Node>(&Key::new("", "node-1"));
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "node-1", "controller": true,
            "uid": node.and_then(|node| node.metadata.uid.clone())}]);
        let (name, labels, owners) = match ground.choices.below(3) {
            0 => (FOREIGN, json!(model.metadata.labels), owner),
            1 => (FOREIGN, json!({"app": "other"}), Value::Null),
            _ => ("stray", json!(model.metadata.labels), Value::Null),
        };
        let name = format!("{name}-{}", self.foreign);
        ground.say(|| format!("user: creates pod {name} {labels} {owners}"));
        let mut spec = json!(model.spec);
        spec["nodeName"] = Value::Null;
        spec["containers"][0]["resources"] = Value::Null;
        create::<Pod>(
            ground,
            json!({
                "apiVersion": "v1", "kind": "Pod", "spec": spec,
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels, "ownerReferences": owners},
            }),
        );
    }
}
