//! What a URL path asks for.

use percent_encoding::percent_decode_str;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An object, a collection or a subresource.
    Resource(Path),
    /// Anything else: health, discovery, OpenAPI…
    Other,
}

/// The parts of `/apis/GROUP/VERSION[/namespaces/NS]/RESOURCE[/NAME[/SUBRESOURCE]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) resource: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// What follows the subresource (`proxy/PATH`), as it was written: empty, or with a slash in front.
    pub(crate) rest: String,
}

/// Subresources of namespaces themselves, as against resources in a namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl Target {
    /// Takes a URL path apart. Segments are percent-decoded after splitting.
    pub(crate) fn parse(url: &str) -> Self {
        let decode = |s: &str| percent_decode_str(s).decode_utf8_lossy().into_owned();
        let segments: Vec<String> = url.split('/').filter(|s| !s.is_empty()).map(decode).collect();
        let (group, version, tail) = match segments.as_slice() {
            [api, version, tail @ ..] if api == "api" => (String::new(), version.clone(), tail),
            [apis, group, version, tail @ ..] if apis == "apis" => (group.clone(), version.clone(), tail),
            _ => return Self::Other,
        };
        let mut path = Path { group, version, ..Path::default() };
        let mut tail = tail;
        // The old `/api/v1/watch/…` prefix is not served; it parses as a resource that does not exist.
        if let [namespaces, namespace, more @ ..] = tail
            && namespaces == "namespaces"
            && more.first().is_some_and(|next| !NAMESPACE_SUBRESOURCES.contains(&next.as_str()))
        {
            path.namespace = Some(namespace.clone());
            tail = more;
        }
        let mut parts = tail.iter().cloned();
        let Some(resource) = parts.next() else { return Self::Other };
        path.resource = resource;
        path.name = parts.next();
        path.subresource = parts.next();
        after(url, segments.len() - parts.len()).clone_into(&mut path.rest);
        Self::Resource(path)
    }
}

/// What follows the first `count` segments.
fn after(path: &str, count: usize) -> &str {
    (0..count).fold(path, |rest, _| {
        let rest = rest.trim_start_matches('/');
        rest.find('/').map_or("", |end| &rest[end..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> String {
        match Target::parse(path) {
            Target::Other => "other".into(),
            Target::Resource(p) => {
                let text = |o: &Option<String>| o.clone().unwrap_or_else(|| "-".into());
                format!(
                    "{}/{} {} {} {} {}",
                    p.group,
                    p.version,
                    text(&p.namespace),
                    p.resource,
                    text(&p.name),
                    text(&p.subresource)
                )
            }
        }
    }

    #[rstest::rstest]
    #[case::list_everywhere("/api/v1/pods", "/v1 - pods - -")]
    #[case::list_in_a_namespace("/api/v1/namespaces/default/pods", "/v1 default pods - -")]
    #[case::one_object("/apis/apps/v1/namespaces/x/deployments/kubia", "apps/v1 x deployments kubia -")]
    #[case::a_subresource("/api/v1/namespaces/x/pods/p/log", "/v1 x pods p log")]
    #[case::a_namespace("/api/v1/namespaces/x", "/v1 - namespaces x -")]
    #[case::a_namespaces_status("/api/v1/namespaces/x/status", "/v1 - namespaces x status")]
    #[case::finalize("/api/v1/namespaces/x/finalize", "/v1 - namespaces x finalize")]
    #[case::group_discovery("/apis/apps/v1", "other")]
    #[case::encoded("/api/v1/namespaces/a%2Fb/pods", "/v1 a/b pods - -")]
    #[case::a_proxy("/api/v1/namespaces/x/pods/p:80/proxy/a", "/v1 x pods p:80 proxy")]
    #[case::health("/healthz", "other")]
    fn a_path_is_taken_apart(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(shown(path), expected);
    }

    #[rstest::rstest]
    #[case::nothing("/api/v1/namespaces/x/pods/p/proxy", "")]
    #[case::the_root("/api/v1/namespaces/x/pods/p/proxy/", "/")]
    #[case::as_it_was_written("/api//v1/namespaces/x/pods/p/proxy/a%2Fb//c/", "/a%2Fb//c/")]
    fn what_a_proxy_passes_on_is_left_alone(#[case] path: &str, #[case] expected: &str) {
        let Target::Resource(parsed) = Target::parse(path) else { panic!("no resource") };
        assert_eq!(parsed.rest, expected);
    }
}
