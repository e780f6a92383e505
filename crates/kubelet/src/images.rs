//! Getting a container's image by its `imagePullPolicy`, with upstream's events and reasons.

use crate::clock::between;
use crate::events::Severity::{Normal, Warning};
use crate::pod::snapshot::ImageFailure;
use crate::shared::Shared;
use base64::Engine;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use sagong_image::{Credentials, Image, ImageError, NoProgress};
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
    let credentials = credentials(shared, pod, name).await;
    match shared.images.pull(name, credentials, &NoProgress).await {
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

/// Credentials for an image's registry from `spec.imagePullSecrets`; None if none fits.
async fn credentials(shared: &Shared, pod: &Pod, image: &str) -> Option<Credentials> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut missing = Vec::new();
    for reference in pod.spec.as_ref()?.image_pull_secrets.iter().flatten() {
        match shared.cluster.secret(namespace, &reference.name).await {
            Ok(Some(secret)) => {
                if let Some(found) = in_secret(&secret, registry(image)) {
                    return Some(found);
                }
            }
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
    None
}

/// The registry of an image's name.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn in_secret(secret: &Secret, registry: &str) -> Option<Credentials> {
    let bytes = &secret.data.as_ref()?.get(".dockerconfigjson")?.0;
    let config: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let auths = config.get("auths")?.as_object()?;
    let host = |key: &str| {
        let bare = key.trim_start_matches("https://").trim_start_matches("http://");
        bare.split('/').next().unwrap_or_default().to_owned()
    };
    let is_hub = |host: &str| host == "index.docker.io" || host == "docker.io";
    let fits = |key: &str| host(key) == registry || (is_hub(registry) && is_hub(&host(key)));
    let (_, entry) = auths.iter().find(|(key, _)| fits(key))?;
    let text = |key: &str| entry.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
    if let (Some(username), Some(password)) = (text("username"), text("password")) {
        return Some(Credentials { username, password });
    }
    let plain =
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text("auth")?).ok()?).ok()?;
    let (username, password) = plain.split_once(':')?;
    Some(Credentials { username: username.into(), password: password.into() })
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
    fn a_pull_secret_is_used_for_its_registry_only() {
        let config = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpwYXNz"}}}"#;
        let data = [(".dockerconfigjson".to_owned(), k8s_openapi::ByteString(config.into()))];
        let secret = Secret { data: Some(data.into()), ..Default::default() };
        let found = in_secret(&secret, registry("luksa/kubia:v1")).unwrap();
        assert_eq!((found.username.as_str(), found.password.as_str()), ("user", "pass"));
        assert!(in_secret(&secret, registry("quay.io/x/y")).is_none());
    }
}
