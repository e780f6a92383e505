//! Images made for the tests, and what is served of them.

use crate::server::{Answer, Request};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Write;

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar archive of regular files.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An image: its blobs by digest, and the parts that tests spoil.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Value,
    /// As they are sent, by digest.
    pub(crate) blobs: HashMap<String, Vec<u8>>,
    pub(crate) diff_ids: Vec<String>,
}

impl Made {
    /// Of layers, each as a tar archive and as it is sent.
    pub(crate) fn of(layers: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|(plain, _)| digest(plain)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/app"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let mut blobs: HashMap<_, _> = layers.iter().map(|(_, sent)| (digest(sent), sent.clone())).collect();
        blobs.insert(digest(&config), config.clone());
        let descriptors: Vec<Value> =
            layers.iter().map(|(_, sent)| json!({ "digest": digest(sent), "size": sent.len() })).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "config": { "digest": digest(&config), "size": config.len() },
            "layers": descriptors,
        });
        Self { config, manifest, blobs, diff_ids }
    }

    /// Of one layer with a file `app`, compressed with gzip.
    pub(crate) fn small(content: &[u8]) -> Self {
        let layer = tar_of(&[("app", content)]);
        Self::of(&[(layer.clone(), gzip(&layer))])
    }

    /// The digest of a layer as it is sent.
    pub(crate) fn layer(&self, index: usize) -> String {
        self.manifest["layers"][index]["digest"].as_str().unwrap().to_owned()
    }

    pub(crate) fn manifest_bytes(&self) -> Vec<u8> {
        self.manifest.to_string().into_bytes()
    }

    /// What a registry without quirks answers.
    pub(crate) fn answer(&self, request: &Request) -> Answer {
        let last = request.path.rsplit('/').next().unwrap();
        if request.path.contains("/manifests/") && !last.contains(':') {
            return Answer::ok(self.manifest_bytes());
        }
        if last == digest(&self.manifest_bytes()) {
            return Answer::ok(self.manifest_bytes());
        }
        match self.blobs.get(last) {
            Some(blob) => Answer::ok(blob.clone()).ranged(request),
            None => {
                Answer { body: br#"{"errors": [{"code": "BLOB_UNKNOWN"}]}"#.to_vec(), ..Answer::status(404) }
            }
        }
    }
}
