//! Which change of a running container's spec means a restart.

use k8s_openapi::api::core::v1::Container;

/// A hash of what cannot change in place: name and image. Kept with the container as an annotation, so it
/// must stay the same from one version of Sagong to the next: FNV-1a over `name NUL image`.
pub(crate) fn container_hash(spec: &Container) -> String {
    let image = spec.image.as_deref().unwrap_or_default();
    let bytes = spec.name.bytes().chain(std::iter::once(0)).chain(image.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, image: &str) -> Container {
        Container { name: name.into(), image: Some(image.into()), ..Default::default() }
    }

    #[test]
    fn only_name_and_image_count() {
        let mut other = container("a", "kubia:v1");
        other.tty = Some(true);
        assert_eq!(container_hash(&container("a", "kubia:v1")), container_hash(&other));
        assert_ne!(container_hash(&container("a", "kubia:v1")), container_hash(&container("a", "kubia:v2")));
    }

    #[test]
    fn the_hash_never_changes_between_versions() {
        assert_eq!(container_hash(&container("", "")), "af63bd4c8601b7df");
    }
}
