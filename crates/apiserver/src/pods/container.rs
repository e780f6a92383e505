//! Which container of a pod a log or a stream is of.

use crate::failure::{Failure, Outcome};
use k8s_openapi::api::core::v1::Pod;

/// The container that is asked for, or the only one.
pub(crate) fn choose(pod: &Pod, asked: Option<&str>) -> Outcome<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Err(Failure::internal("a stored pod has no spec")) };
    let mains: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let inits: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str());
    match (asked, mains.as_slice()) {
        (Some(asked), _) => {
            let known = mains.iter().chain(&inits).copied().chain(ephemeral).any(|known| known == asked);
            let wrong = || Failure::bad_request(format!("container {asked} is not valid for pod {name}"));
            known.then(|| asked.to_owned()).ok_or_else(wrong)
        }
        (None, [only]) => Ok((*only).to_owned()),
        (None, several) => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            );
            if !inits.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", inits.join(" ")));
            }
            Err(Failure::bad_request(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(
        None,
        "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
    )]
    #[case(Some("b"), "\"b\"")]
    #[case(Some("i"), "\"i\"")]
    #[case(Some("e"), "\"e\"")]
    #[case(Some("x"), "container x is not valid for pod p")]
    fn a_container_is_chosen(#[case] asked: Option<&str>, #[case] expected: &str) {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}],
            "ephemeralContainers": [{"name": "e"}],
        }}));
        let chosen = choose(&pod.unwrap(), asked);
        let said =
            chosen.map_or_else(|failure| failure.0.message.unwrap_or_default(), |name| format!("{name:?}"));
        assert_eq!(said, expected);
    }
}
