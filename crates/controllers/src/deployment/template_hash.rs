//! The hash of a pod template that names a ReplicaSet and keeps its pods apart from those of its siblings.

use super::snapshot::spec_of;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The label that carries the hash.
pub const LABEL: &str = "pod-template-hash";

/// The letters of generated names: without vowels no bad words, without 0, 1 and 3 no mistaken letters.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a of the template and the collision count, in up to ten letters. The template as stored: two templates that
/// mean the same in different words may have different hashes, which does no harm.
pub fn template_hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    // Serialising to memory cannot fail; if it did, the collision count would still tell hashes apart.
    let json = serde_json::to_vec(template).unwrap_or_default();
    let count = collision_count.map(|count| i64::from(count).to_le_bytes());
    safe_encode(fnv1a(json.iter().chain(count.iter().flatten())))
}

/// The hash of this Deployment's template.
pub fn of(deployment: &Deployment) -> String {
    let collision_count = deployment.status.as_ref().and_then(|status| status.collision_count);
    template_hash(&spec_of(deployment).template, collision_count)
}

/// The name of the ReplicaSet for this Deployment's template: `kubia-7c699f58dd`.
pub fn replica_set_name(deployment: &Deployment) -> String {
    format!("{}-{}", deployment.metadata.name.as_deref().unwrap_or_default(), of(deployment))
}

fn fnv1a<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Each decimal digit becomes a letter: 42 → `86`.
fn safe_encode(hash: u32) -> String {
    hash.to_string().bytes().map(|digit| char::from(LETTERS[usize::from(digit) % LETTERS.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case::empty("", 0x811c_9dc5)]
    #[case::one_letter("a", 0xe40c_292c)]
    #[case::word("foobar", 0xbf9c_f968)]
    fn fnv_gives_the_published_values(#[case] text: &str, #[case] expected: u32) {
        assert_eq!(fnv1a(text.as_bytes().iter()), expected);
    }

    #[rstest]
    #[case(0, "4")]
    #[case(1, "5")]
    #[case(9, "f")]
    #[case(42, "86")]
    #[case(4_294_967_295, "86f8fbc6f9")]
    fn digits_become_safe_letters(#[case] hash: u32, #[case] expected: &str) {
        assert_eq!(safe_encode(hash), expected);
    }

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "nodejs", "image": image}]}})).unwrap()
    }

    #[test]
    fn a_hash_depends_on_the_template_and_the_collision_count_only() {
        let hash = template_hash(&template("v1"), None);
        assert_eq!(hash, template_hash(&template("v1"), None));
        assert_ne!(hash, template_hash(&template("v2"), None));
        assert_ne!(hash, template_hash(&template("v1"), Some(1)));
        assert_ne!(template_hash(&template("v1"), Some(1)), template_hash(&template("v1"), Some(2)));
    }

    proptest! {
        #[test]
        fn a_hash_is_a_valid_label_of_at_most_ten_letters(image in ".{0,40}", count in proptest::option::of(0..9)) {
            let hash = template_hash(&template(&image), count);
            prop_assert!((1..=10).contains(&hash.len()));
            prop_assert!(hash.bytes().all(|letter| LETTERS.contains(&letter)));
        }
    }
}
