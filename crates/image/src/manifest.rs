//! Manifests and indexes of the OCI image spec, and Docker's, which differ in their media types only.

use crate::ImageError;
use crate::archive::refused;
use serde::Deserialize;
use std::collections::HashMap;

/// Indexes nested deeper than this are no image of anybody's.
pub(crate) const DEPTH_LIMIT: u8 = 4;

/// What an image's name or digest leads to.
#[derive(Debug)]
pub(crate) enum Document {
    /// Images for several platforms.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Manifest),
}

/// One image.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

/// A blob, as a manifest names it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) digest: String,
    /// Bytes.
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) annotations: HashMap<String, String>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Document {
    /// Reads one; what it is follows from what it holds, since media types are often left out. One that is both is
    /// refused: it would be one thing to us and another to whoever checked it.
    pub(crate) fn parse(bytes: &[u8], object: &str) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        struct Either {
            #[serde(default, rename = "schemaVersion")]
            schema: Option<u64>,
            manifests: Option<Vec<Descriptor>>,
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
        }
        let either: Either =
            serde_json::from_slice(bytes).map_err(|error| refused(object, format!("manifest: {error}")))?;
        match either {
            Either { manifests: Some(manifests), config: None, layers: None, .. } => {
                Ok(Self::Index(manifests))
            }
            Either { manifests: None, config: Some(config), layers: Some(layers), .. } => {
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            Either { schema: Some(1), .. } => {
                Err(refused(object, "its manifest has schema version 1, which nobody supports any more"))
            }
            _ => Err(refused(object, "its manifest is neither that of an image nor an index")),
        }
    }
}

/// The image of an index that is for this machine.
pub(crate) fn ours(index: Vec<Descriptor>, object: &str) -> Result<Descriptor, ImageError> {
    let is_ours = |descriptor: &Descriptor| {
        let platform = descriptor.platform.as_ref();
        platform.is_some_and(|it| it.os == "linux" && it.architecture == architecture())
    };
    let found = index.into_iter().find(is_ours);
    found.ok_or_else(|| refused(object, format!("it has no image for linux/{}", architecture())))
}

/// This machine's architecture, as Go and the OCI specs name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::both(r#"{"manifests": [], "config": {"digest": "a"}, "layers": []}"#, "neither")]
    #[case::neither(r#"{"schemaVersion": 2}"#, "neither")]
    #[case::old(r#"{"schemaVersion": 1, "fsLayers": []}"#, "schema version 1")]
    #[case::negative(r#"{"config": {"digest": "a", "size": -1}, "layers": []}"#, "invalid value")]
    #[case::no_json("<html>", "expected value")]
    fn what_is_no_manifest_is_refused(#[case] text: &str, #[case] why: &str) {
        let error = Document::parse(text.as_bytes(), "kubia").unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }

    #[test]
    fn an_index_gives_the_image_for_this_machine() {
        let entry = |digest: &str, os: &str, architecture: &str| {
            let platform = Some(Platform { os: os.into(), architecture: architecture.into() });
            Descriptor { digest: digest.into(), size: 1, annotations: HashMap::new(), platform }
        };
        let attestation = Descriptor { platform: None, ..entry("a", "", "") };
        let others = vec![attestation, entry("b", "windows", architecture()), entry("c", "linux", "s390x")];
        let error = ours(others.clone(), "kubia").unwrap_err();
        assert!(error.to_string().contains("no image for linux/"), "{error}");
        let all = [others, vec![entry("d", "linux", architecture())]].concat();
        assert_eq!(ours(all, "kubia").unwrap().digest, "d");
    }
}
