//! Getting a container's image by its `imagePullPolicy`, with upstream's events and reasons.

use crate::clock::between;
use crate::events::Severity::{Normal, Warning};
use crate::pod::snapshot::ImageFailure;
use crate::shared::Shared;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use sagong_image::{Image, ImageError, Keyring, NoProgress, normalize, pull_as_any};
use std::sync::Arc;
use std::time::Duration;

/// `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// The API's defaults: `Always` for the tag `latest` or none, else `IfNotPresent`.
    fn of(spec: &Container) -> Self {
        match spec.image_pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            Some("IfNotPresent") => PullPolicy::IfNotPresent,
            _ => {
                let image = spec.image.as_deref().unwrap_or_default();
                let last = image.rsplit('/').next().unwrap_or_default();
                let latest = !image.contains('@') && (!last.contains(':') || last.ends_with(":latest"));
                if latest { PullPolicy::Always } else { PullPolicy::IfNotPresent }
            }
        }
    }
}

/// Finds or pulls the image of a container.
///
/// # Errors
/// What the container's waiting state shows.
pub(crate) async fn ensure(shared: &Shared, pod: &Pod, spec: &Container) -> Result<Arc<Image>, ImageFailure> {
    let name = spec.image.as_deref().unwrap_or_default();
    let tell = |severity, reason, message: String| {
        shared.recorder.container(pod, &spec.name, severity, reason, message);
    };
    let fail = |reason, message: String| ImageFailure { reason, message, at: shared.clock.now() };
    let policy = PullPolicy::of(spec);
    let present = match shared.images.find(name).await {
        Ok(found) => found,
        Err(error @ ImageError::InvalidName { .. }) => {
            let message = format!("Failed to apply default image tag \"{name}\": {error}");
            tell(Warning, "InspectFailed", message.clone());
            tell(Warning, "Failed", "Error: InvalidImageName".into());
            return Err(fail("InvalidImageName", message));
        }
        Err(error) => {
            let message = format!("Failed to inspect image \"{name}\": {error}");
            tell(Warning, "InspectFailed", message.clone());
            tell(Warning, "Failed", "Error: ImageInspectError".into());
            return Err(fail("ImageInspectError", message));
        }
    };
    match (policy, present) {
        (PullPolicy::IfNotPresent | PullPolicy::Never, Some(image)) => {
            tell(Normal, "Pulled", format!("Container image \"{name}\" already present on machine"));
            Ok(Arc::new(image))
        }
        (PullPolicy::Never, None) => {
            let message = format!("Container image \"{name}\" is not present with pull policy of Never");
            tell(Warning, "ErrImageNeverPull", message.clone());
            tell(Warning, "Failed", "Error: ErrImageNeverPull".into());
            Err(fail("ErrImageNeverPull", message))
        }
        _ => pull(shared, pod, spec, name).await,
    }
}

async fn pull(shared: &Shared, pod: &Pod, spec: &Container, name: &str) -> Result<Arc<Image>, ImageFailure> {
    let tell = |severity, reason, message: String| {
        shared.recorder.container(pod, &spec.name, severity, reason, message);
    };
    tell(Normal, "Pulling", format!("Pulling image \"{name}\""));
    let began = shared.clock.now();
    let full = normalize(name).unwrap_or_else(|_| name.to_owned());
    let credentials = keyring(shared, pod).await.lookup(&full);
    match pull_as_any(shared.images.as_ref(), name, credentials, &NoProgress).await {
        Ok(image) => {
            let took = go_seconds(between(began, shared.clock.now()));
            tell(
                Normal,
                "Pulled",
                format!(
                    "Successfully pulled image \"{name}\" in {took} ({took} including waiting). Image size: {} bytes.",
                    image.size
                ),
            );
            Ok(Arc::new(image))
        }
        Err(error) => {
            let message = error.to_string();
            tell(Warning, "Failed", format!("Failed to pull image \"{name}\": {message}"));
            tell(Warning, "Failed", "Error: ErrImagePull".into());
            Err(ImageFailure { reason: "ErrImagePull", message, at: shared.clock.now() })
        }
    }
}

/// Who we are to registries: what `spec.imagePullSecrets` say first, then the node's own files.
async fn keyring(shared: &Shared, pod: &Pod) -> Keyring {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let (mut keyring, mut missing) = (Keyring::default(), Vec::new());
    let references = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    for reference in references {
        match shared.cluster.secret(namespace, &reference.name).await {
            Ok(Some(secret)) => add(&mut keyring, &secret),
            Ok(None) => missing.push(reference.name.as_str()),
            Err(error) => {
                tracing::warn!(%error, "pull secret not read");
                missing.push(reference.name.as_str());
            }
        }
    }
    if !missing.is_empty() {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            missing.join(", ")
        );
        shared.recorder.pod(pod, Warning, "FailedToRetrieveImagePullSecret", message);
    }
    keyring.extend(Keyring::of_machine(&[&shared.config.data_dir]));
    keyring
}

fn add(keyring: &mut Keyring, secret: &Secret) {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    if let Some(config) = data(".dockerconfigjson") {
        keyring.add_config(&config.0);
    }
    if let Some(config) = data(".dockercfg") {
        keyring.add_dockercfg(&config.0);
    }
}

/// A duration as Go prints it, cut to milliseconds: `843ms`, `1.2s`, `1m2.5s`.
fn go_seconds(took: Duration) -> String {
    let millis = took.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, millis) = (millis / 60_000, millis % 60_000);
    let fraction = format!("{:03}", millis % 1000);
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{dot}{fraction}s", millis / 1000);
    if minutes > 0 { format!("{minutes}m{seconds}") } else { seconds }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("kubia", PullPolicy::Always)]
    #[case("kubia:latest", PullPolicy::Always)]
    #[case("localhost:5000/kubia", PullPolicy::Always)]
    #[case("luksa/kubia:v1", PullPolicy::IfNotPresent)]
    #[case("kubia@sha256:abc", PullPolicy::IfNotPresent)]
    fn without_a_policy_the_tag_decides(#[case] image: &str, #[case] policy: PullPolicy) {
        let spec = Container { image: Some(image.into()), ..Default::default() };
        assert_eq!(PullPolicy::of(&spec), policy);
    }

    #[rstest]
    #[case(843, "843ms")]
    #[case(1200, "1.2s")]
    #[case(2000, "2s")]
    #[case(62_543, "1m2.543s")]
    fn pull_times_print_as_go_prints_them(#[case] millis: u64, #[case] text: &str) {
        assert_eq!(go_seconds(Duration::from_millis(millis)), text);
    }

    #[test]
    fn pull_secrets_come_in_two_types() {
        for (name, config) in [
            (".dockerconfigjson", r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpwYXNz"}}}"#),
            (".dockercfg", r#"{"https://index.docker.io/v1/": {"auth": "dXNlcjpwYXNz"}}"#),
        ] {
            let data = [(name.to_owned(), k8s_openapi::ByteString(config.into()))];
            let mut keyring = Keyring::default();
            add(&mut keyring, &Secret { data: Some(data.into()), ..Default::default() });
            assert_eq!(keyring.lookup("docker.io/luksa/kubia:v1").len(), 1, "{name}");
            assert!(keyring.lookup("quay.io/x/y:v1").is_empty(), "{name}");
        }
    }
}
