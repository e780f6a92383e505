//! Image names, normalised as Docker does: `kubia` is `docker.io/library/kubia:latest`.

use crate::ImageError;
use oci_client::Reference;

/// Reads an image name. `kubia` becomes `docker.io/library/kubia:latest`.
///
/// # Errors
/// [`ImageError::InvalidName`] if it is not one.
pub(crate) fn parse(reference: &str) -> Result<Reference, ImageError> {
    reference.parse::<Reference>().map_err(|error| ImageError::InvalidName {
        reference: reference.to_owned(),
        message: error.to_string(),
    })
}

/// The full form of an image name: registry, repository, and tag or digest.
///
/// # Errors
/// [`ImageError::InvalidName`] if it is not one.
pub fn normalize(reference: &str) -> Result<String, ImageError> {
    Ok(parse(reference)?.whole())
}

/// Whether this is an image id (`sha256:…`, the digest of a config) and not a name.
pub(crate) fn is_id(reference: &str) -> bool {
    reference.strip_prefix("sha256:").is_some_and(is_hex_digest)
}

pub(crate) fn is_hex_digest(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a registry is on this machine, where Docker, too, speaks plain HTTP.
pub(crate) fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("kubia", "docker.io/library/kubia:latest")]
    #[case("luksa/kubia:v1", "docker.io/luksa/kubia:v1")]
    #[case("docker.io/luksa/kubia:v1", "docker.io/luksa/kubia:v1")]
    #[case("127.0.0.1:5000/kubia", "127.0.0.1:5000/kubia:latest")]
    fn names_are_normalised_as_docker_does(#[case] given: &str, #[case] full: &str) {
        assert_eq!(normalize(given).unwrap(), full);
    }

    #[rstest]
    #[case("")]
    #[case("Kubia")]
    #[case("kubia:")]
    #[case("a b")]
    #[case("../etc/passwd")]
    fn what_is_no_name_is_refused(#[case] given: &str) {
        assert!(matches!(normalize(given), Err(ImageError::InvalidName { .. })));
    }

    #[rstest]
    #[case("127.0.0.1:5000", true)]
    #[case("localhost:5000", true)]
    #[case("localhost", true)]
    #[case("docker.io", false)]
    #[case("10.0.0.1:5000", false)]
    fn only_this_machine_is_spoken_to_in_plain_http(#[case] registry: &str, #[case] plain: bool) {
        assert_eq!(is_loopback(registry), plain);
    }
}
