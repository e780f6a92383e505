//! The store on a real disk: archives in, overlay mounts out.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use sagong_image::{ImageError, ImageStore, Images, ImportOptions, ImportedFile, NoProgress};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// The config of an image whose layers have these uncompressed streams.
fn config_of(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Cmd": ["/app"], "Env": ["A=1"], "StopSignal": "SIGQUIT" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
    .into_bytes()
}

/// What `docker save luksa/kubia:v1` writes.
fn docker_archive(layers: &[&[u8]]) -> Vec<u8> {
    let config = config_of(layers);
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let names: Vec<String> = (0..layers.len()).map(|i| format!("{i}/layer.tar")).collect();
    let manifest =
        json!([{ "Config": config_name, "RepoTags": ["luksa/kubia:v1"], "Layers": names }]).to_string();
    let mut files: Vec<(&str, &[u8])> = vec![(&config_name, &config), ("manifest.json", manifest.as_bytes())];
    files.extend(names.iter().map(String::as_str).zip(layers.iter().copied()));
    tar_of(&files)
}

/// An OCI layout whose one layer is compressed. `spoil` may change blobs after their digests were taken.
fn oci_layout(layer: &[u8], spoil: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let (config, packed) = (config_of(&[layer]), gzip(layer));
    let manifest = json!({
        "schemaVersion": 2,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len() },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(&packed), "size": packed.len() }],
    })
    .to_string()
    .into_bytes();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&manifest), "size": manifest.len(),
            "annotations": { "io.containerd.image.name": "docker.io/luksa/kubia:v2" },
        }],
    });
    let mut blobs: Vec<(String, Vec<u8>)> = [config, packed, manifest]
        .into_iter()
        .map(|blob| (format!("blobs/sha256/{}", hex::encode(Sha256::digest(&blob))), blob))
        .collect();
    blobs.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    blobs.push(("index.json".into(), index.to_string().into_bytes()));
    spoil(&mut blobs);
    let files: Vec<(&str, &[u8])> =
        blobs.iter().map(|(name, blob)| (name.as_str(), blob.as_slice())).collect();
    tar_of(&files)
}

struct Fixture {
    directory: tempfile::TempDir,
    store: ImageStore,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&directory.path().join("images")).unwrap();
        Self { directory, store }
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join("archive.tar");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// What is in the store's directory of layers and in its scratch space.
    fn leftovers(&self) -> usize {
        let count =
            |part| std::fs::read_dir(self.directory.path().join("images").join(part)).unwrap().count();
        count("tmp")
    }
}

/// Unmounts also when the test fails.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_docker_archive_is_loaded_and_mounted_with_its_layers_stacked() {
    let fixture = Fixture::new();
    let lower = tar_of(&[("app", b"one"), ("gone", b"x"), ("kept", b"k")]);
    let upper = tar_of(&[("app", b"two"), (".wh.gone", b"")]);
    for bytes in [docker_archive(&[&lower, &upper]), gzip(&docker_archive(&[&lower, &upper]))] {
        let loaded = fixture.store.load(&fixture.file(&bytes)).await.unwrap();
        assert_eq!(loaded[0].tags, ["docker.io/luksa/kubia:v1"]);
    }
    let image = fixture.store.find("luksa/kubia:v1").await.unwrap().unwrap();
    assert_eq!(image.config.cmd, ["/app"]);
    assert_eq!(image.config.stop_signal, "SIGQUIT");

    let root = fixture.store.mount(&image.id, "pod-1").await.unwrap();
    let _unmount = Unmount(root.clone());
    assert_eq!(std::fs::read(root.join("app")).unwrap(), b"two");
    assert!(!root.join("gone").exists());
    std::fs::write(root.join("kept"), b"changed").unwrap();

    let other = fixture.store.mount(&image.id, "pod-2").await.unwrap();
    let _unmount = Unmount(other.clone());
    assert_eq!(std::fs::read(other.join("kept")).unwrap(), b"k", "containers do not see each other's writes");

    let again = fixture.store.mount(&image.id, "pod-1").await.unwrap();
    assert_eq!(std::fs::read(again.join("kept")).unwrap(), b"changed", "asking again gives the same one");

    // Removing the image does not pull the layers from under a container.
    fixture.store.remove(&image.id).await.unwrap();
    assert_eq!(std::fs::read(root.join("app")).unwrap(), b"two");
    for key in fixture.store.mounted().await.unwrap() {
        fixture.store.unmount(&key).await.unwrap();
    }
    assert!(fixture.store.mounted().await.unwrap().is_empty());
    fixture.store.clean().unwrap();
    let layers = fixture.directory.path().join("images/layers");
    assert_eq!(std::fs::read_dir(layers).unwrap().count(), 0, "unused layers are swept");
}

#[tokio::test]
async fn an_oci_layout_is_loaded_from_an_archive_and_from_a_directory() {
    let fixture = Fixture::new();
    let bytes = oci_layout(&tar_of(&[("app", b"one")]), |_| {});
    let loaded = fixture.store.load(&fixture.file(&bytes)).await.unwrap();
    assert_eq!(loaded[0].tags, ["docker.io/luksa/kubia:v2"]);
    let directory = fixture.directory.path().join("layout");
    tar::Archive::new(&bytes[..]).unpack(&directory).unwrap();
    assert_eq!(fixture.store.load(&directory).await.unwrap(), loaded);
}

#[tokio::test]
async fn a_layout_with_a_changed_blob_is_refused_and_leaves_nothing() {
    for spoiled in 0..3 {
        let fixture = Fixture::new();
        let bytes = oci_layout(&tar_of(&[("app", b"one")]), |blobs| {
            // Still well-formed: a space more in JSON, another layer content.
            blobs[spoiled].1 = match spoiled {
                1 => gzip(&tar_of(&[("app", b"two")])),
                _ => [&blobs[spoiled].1[..], b" "].concat(),
            };
        });
        let error = fixture.store.load(&fixture.file(&bytes)).await.unwrap_err();
        assert!(
            matches!(&error, ImageError::Refused { message, .. } if message.contains("digest")),
            "{error}"
        );
        assert!(fixture.store.list().await.unwrap().is_empty());
        assert_eq!(fixture.leftovers(), 0);
    }
}

#[tokio::test]
async fn corrupt_and_foreign_archives_are_refused_with_the_reason() {
    let cut = docker_archive(&[&tar_of(&[("app", &[7u8; 4096])])]);
    let cases: [(&[u8], &str); 4] = [
        (b"not an archive at all", "not a whole tar archive"),
        (&cut[..cut.len() / 2], "not a whole tar archive"),
        (&tar_of(&[("manifest.json", b"[")]), "EOF"),
        (
            &tar_of(&[("manifest.json", br#"[{"Config":"../../etc/passwd","Layers":[]}]"#)]),
            "it lacks ../../etc/passwd",
        ),
    ];
    for (bytes, reason) in cases {
        let fixture = Fixture::new();
        let error = fixture.store.load(&fixture.file(bytes)).await.unwrap_err();
        assert!(matches!(error, ImageError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(fixture.store.list().await.unwrap().is_empty());
        assert_eq!(fixture.leftovers(), 0);
    }
}

#[tokio::test]
async fn a_directory_and_files_become_images() {
    let fixture = Fixture::new();
    let directory = fixture.directory.path().join("root");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("app"), b"one").unwrap();
    let options =
        ImportOptions { name: "kubia:dir".into(), entrypoint: vec!["/app".into()], ..Default::default() };
    let image = fixture.store.import(&directory, options.clone()).await.unwrap();
    assert_eq!(image.tags, ["docker.io/library/kubia:dir"]);
    assert_eq!(image.config.entrypoint, ["/app"]);

    let file = ImportedFile { path: "app".into(), content: b"one".to_vec() };
    let options = ImportOptions { name: "kubia:files".into(), ..options };
    let first = fixture.store.import_files(vec![file.clone()], options.clone()).await.unwrap();
    let second = fixture.store.import_files(vec![file], options).await.unwrap();
    assert_eq!(first, second, "the same files give the same image");
}

#[tokio::test]
async fn a_tag_moves_to_the_image_loaded_last() {
    let fixture = Fixture::new();
    let options = ImportOptions { name: "kubia:v1".into(), ..Default::default() };
    let file = |content: &[u8]| vec![ImportedFile { path: "app".into(), content: content.to_vec() }];
    let old = fixture.store.import_files(file(b"old"), options.clone()).await.unwrap();
    let new = fixture.store.import_files(file(b"new"), options).await.unwrap();
    assert_eq!(fixture.store.find("kubia:v1").await.unwrap().unwrap().id, new.id);
    assert!(fixture.store.find(&old.id).await.unwrap().unwrap().tags.is_empty());
}

#[tokio::test]
async fn keys_that_are_paths_are_refused() {
    let fixture = Fixture::new();
    for key in ["", ".", "..", "../x", "a/b", "/etc"] {
        assert!(fixture.store.unmount(key).await.is_err(), "{key:?}");
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named_in_the_error() {
    let fixture = Fixture::new();
    // Port 1 on loopback: nothing listens there.
    let error = fixture.store.pull("127.0.0.1:1/kubia:v1", None, &NoProgress).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1/kubia:v1"), "{error}");
    assert!(error.to_string().to_lowercase().contains("refused"), "{error}");
    assert!(Path::new(fixture.directory.path()).exists());
}
