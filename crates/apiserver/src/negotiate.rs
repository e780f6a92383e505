//! Which representation of an answer a client accepts.

use http::HeaderMap;
use http::header::ACCEPT;
use sagong_api::error::ApiError;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// As what an object is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As itself.
    Object,
    /// As a `meta.k8s.io Table` of this version.
    Table(&'static str),
    /// Only its metadata.
    PartialMetadata(&'static str),
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
}

/// Plain JSON.
pub(crate) const JSON: Wanted = Wanted { encoding: Encoding::Json, shape: Shape::Object };

/// One clause of an `Accept` header.
pub(crate) struct Clause<'a> {
    pub(crate) media_type: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or("");
        let parameters = parts.filter_map(|p| p.split_once('=')).map(|(n, v)| (n.trim(), v.trim())).collect();
        Self { media_type, parameters }
    }

    /// The value of a parameter, `""` when absent.
    pub(crate) fn parameter(&self, name: &str) -> &'a str {
        self.parameters.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| *v)
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.media_type {
            "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            _ => None,
        }
    }

    fn shape(&self) -> Option<Shape> {
        let version = match (self.parameter("g"), self.parameter("v")) {
            ("meta.k8s.io", "v1") => "v1",
            ("meta.k8s.io", "v1beta1") => "v1beta1",
            _ if self.parameter("as").is_empty() => return Some(Shape::Object),
            _ => return None,
        };
        match self.parameter("as") {
            "" => Some(Shape::Object),
            "Table" => Some(Shape::Table(version)),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Shape::PartialMetadata(version)),
            _ => None,
        }
    }
}

/// The clauses of all `Accept` headers, in order of preference as given (weights are not weighed, as
/// upstream's clients list what they like best first).
pub(crate) fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    values
        .flat_map(|v| v.split(','))
        .map(|c| Clause::parse(c.trim()))
        .filter(|c| !c.media_type.is_empty())
        .collect()
}

/// The first clause that can be served, or 406.
pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Wanted, ApiError> {
    negotiate_among(headers, |_| true)
}

/// The same where not every shape is served.
pub(crate) fn negotiate_among(
    headers: &HeaderMap,
    is_served: impl Fn(Shape) -> bool,
) -> Result<Wanted, ApiError> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(JSON);
    }
    let known = clauses.iter().filter_map(|c| Some(Wanted { encoding: c.encoding()?, shape: c.shape()? }));
    let served = known.into_iter().find(|wanted| is_served(wanted.shape));
    served.ok_or_else(|| ApiError::NotAcceptable("application/json, application/yaml".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::nothing("", Some(Shape::Object))]
    #[case::anything("*/*", Some(Shape::Object))]
    #[case::kubectl_get(
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        Some(Shape::Table("v1"))
    )]
    #[case::client_go_protobuf("application/vnd.kubernetes.protobuf,application/json", Some(Shape::Object))]
    #[case::only_protobuf("application/vnd.kubernetes.protobuf", None)]
    #[case::unknown_view_falls_through(
        "application/json;as=Pie;g=meta.k8s.io;v=v1,application/json",
        Some(Shape::Object)
    )]
    #[case::metadata(
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        Some(Shape::PartialMetadata("v1"))
    )]
    fn the_first_clause_that_is_served_wins(#[case] accept: &str, #[case] expected: Option<Shape>) {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, accept.parse().unwrap());
        }
        assert_eq!(negotiate(&headers).ok().map(|w| w.shape), expected);
    }
}
