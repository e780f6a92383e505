//! Equality as upstream's API sees it: a list or map that is empty is the same as one that is not given.

use serde::Serialize;
use serde_json::Value;

/// Whether two values mean the same.
pub(crate) fn is_same<T: PartialEq + Serialize>(a: &T, b: &T) -> bool {
    a == b || pruned(a) == pruned(b)
}

fn pruned(value: &impl Serialize) -> Value {
    let mut tree = serde_json::to_value(value).unwrap_or_default();
    prune(&mut tree);
    tree
}

/// Objects stay even when nothing is left in them: `emptyDir: {}` says something.
fn prune(tree: &mut Value) {
    match tree {
        Value::Object(fields) => {
            fields.retain(|_, value| {
                !matches!(value, Value::Null) && value.as_array().is_none_or(|l| !l.is_empty())
            });
            fields.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, PodSpec, Volume};

    #[test]
    fn an_empty_list_is_as_good_as_none() {
        let spec = PodSpec { volumes: Some(Vec::new()), ..PodSpec::default() };
        assert!(is_same(&spec, &PodSpec::default()));
    }

    #[test]
    fn an_empty_source_is_not_as_good_as_none() {
        let with = Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() };
        assert!(!is_same(&with, &Volume::default()));
    }
}
