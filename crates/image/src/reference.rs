//! Image names, normalised as Docker does: `kubia` is `docker.io/library/kubia:latest`.
//!
//! The grammar is that of the distribution project's `reference` package. It is read here by hand: the regular
//! expression that oci-spec has for it takes 48 MB of memory once compiled, more than the rest of Sagong.

use crate::ImageError;
use oci_spec::distribution::Reference;

/// Longest repository name, registry included, in bytes.
const NAME_MAX: usize = 255;
/// Longest tag, in bytes.
const TAG_MAX: usize = 128;

/// Reads an image name. `kubia` becomes `docker.io/library/kubia:latest`.
///
/// # Errors
/// [`ImageError::InvalidName`] if it is not one.
pub(crate) fn parse(reference: &str) -> Result<Reference, ImageError> {
    let invalid = |message: String| ImageError::InvalidName { reference: reference.to_owned(), message };
    let bad = || invalid("invalid reference format".into());
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    // A colon after the last slash begins the tag; one before belongs to a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let (registry, repository) = split_registry(name);
    if !is_registry(&registry) || tag.is_some_and(|tag| !is_tag(tag)) || digest.is_some_and(|d| !is_digest(d))
    {
        return Err(bad());
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) && is_repository(&repository.to_ascii_lowercase()) {
        return Err(invalid(format!(
            "invalid reference format: repository name ({repository}) must be lowercase"
        )));
    }
    if !is_repository(&repository) {
        return Err(bad());
    }
    if registry.len() + 1 + repository.len() > NAME_MAX {
        return Err(invalid(format!("repository name must not be more than {NAME_MAX} characters")));
    }
    Ok(match (tag, digest) {
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(registry, repository, tag.into(), digest.into())
        }
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest.into()),
        (tag, None) => Reference::with_tag(registry, repository, tag.unwrap_or("latest").into()),
    })
}

/// What stands before the first slash is a registry only if it looks like a host: it has a dot, a port or
/// capitals, or is `localhost`.
fn split_registry(name: &str) -> (String, String) {
    let host = name.split_once('/').filter(|(host, _)| {
        host.contains(['.', ':']) || *host == "localhost" || host.bytes().any(|b| b.is_ascii_uppercase())
    });
    let (registry, repository) = host.unwrap_or(("docker.io", name));
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    if registry == "docker.io" && !repository.contains('/') {
        return (registry.into(), format!("library/{repository}"));
    }
    (registry.into(), repository.into())
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(is_label)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Components of small letters and digits, within which `.`, `_`, `__` or dashes separate.
fn is_repository(repository: &str) -> bool {
    repository.split('/').all(|component| {
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let separators = component.as_bytes().split(plain).filter(|run| !run.is_empty());
        let ends = [component.as_bytes().first(), component.as_bytes().last()];
        ends.into_iter().all(|end| end.is_some_and(&plain))
            && separators
                .into_iter()
                .all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
    })
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    match digest.split_once(':') {
        Some(("sha256", digits)) => hex(digits, 64),
        Some(("sha512", digits)) => hex(digits, 128),
        _ => false,
    }
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
    #[case("index.docker.io/kubia", "docker.io/library/kubia:latest")]
    #[case("127.0.0.1:5000/kubia", "127.0.0.1:5000/kubia:latest")]
    #[case("localhost/kubia:v1", "localhost/kubia:v1")]
    #[case("quay.io/a/b-c__d.e/f:V_1.0-x", "quay.io/a/b-c__d.e/f:V_1.0-x")]
    fn names_are_normalised_as_docker_does(#[case] given: &str, #[case] full: &str) {
        assert_eq!(normalize(given).unwrap(), full);
    }

    #[rstest]
    #[case("", "invalid reference format")]
    #[case("Kubia", "invalid reference format: repository name (library/Kubia) must be lowercase")]
    #[case("kubia:", "invalid reference format")]
    #[case("a b", "invalid reference format")]
    #[case("../etc/passwd", "invalid reference format")]
    #[case("a//b", "invalid reference format")]
    #[case("-a", "invalid reference format")]
    #[case("a..b", "invalid reference format")]
    #[case("a___b", "invalid reference format")]
    #[case("host:port/a", "invalid reference format")]
    #[case("a@sha256:abc", "invalid reference format")]
    #[case("a:-tag", "invalid reference format")]
    fn what_is_no_name_is_refused(#[case] given: &str, #[case] why: &str) {
        let error = normalize(given).unwrap_err();
        assert!(matches!(&error, ImageError::InvalidName { message, .. } if message == why), "{error}");
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(normalize(&format!("a@{digest}")).unwrap(), format!("docker.io/library/a@{digest}"));
        assert_eq!(normalize(&format!("a:v1@{digest}")).unwrap(), format!("docker.io/library/a:v1@{digest}"));
    }

    proptest::proptest! {
        /// The crate's own reading is the judge. No capitals and no
        /// underscores, which it takes in hosts.
        #[test]
        fn names_are_read_as_the_distribution_project_reads_them(name in "[a-z0-9./:@-]{0,24}") {
            match (parse(&name), name.parse::<Reference>()) {
                (Ok(ours), Ok(theirs)) => proptest::prop_assert_eq!(ours.whole(), theirs.whole()),
                (Err(_), Err(_)) => {}
                (ours, theirs) => proptest::prop_assert!(false, "{name}: {ours:?} {theirs:?}"),
            }
        }
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
