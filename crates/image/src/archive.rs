//! Images from files: `docker save` archives and OCI layouts, packed (tar, compressed or not) or as a
//! directory.

use crate::digest::{digest_of, mismatch};
use crate::manifest::{DEPTH_LIMIT, Descriptor, Document, ours};
use crate::reference::{self, is_hex_digest};
use crate::registry::DOCUMENT_LIMIT;
use crate::store::{ImageStore, Record, Scratch, blocking};
use crate::{Image, ImageConfig, ImageError};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// `config` of the OCI image spec, the parts that are used.
#[derive(Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default)]
    config: Option<ProcessConfig>,
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

impl ConfigFile {
    /// Reads a config and checks that its layers are named by well-formed digests.
    pub(crate) fn parse(bytes: &[u8], object: &str) -> Result<Self, ImageError> {
        let file: Self = parse(bytes, object)?;
        match file.rootfs.diff_ids.iter().find(|id| !reference::is_id(id)) {
            Some(bad) => Err(refused(object, format!("{bad:?} is not a sha256 digest"))),
            None => Ok(file),
        }
    }

    pub(crate) fn diff_ids(&self) -> &[String] {
        &self.rootfs.diff_ids
    }

    pub(crate) fn into_record(self, id: String, size: u64) -> Record {
        let process = self.config.unwrap_or_default();
        let config = ImageConfig {
            entrypoint: process.entrypoint.unwrap_or_default(),
            cmd: process.cmd.unwrap_or_default(),
            env: process.env.unwrap_or_default(),
            working_dir: process.working_dir.unwrap_or_default(),
            user: process.user.unwrap_or_default(),
            stop_signal: process.stop_signal.unwrap_or_default(),
        };
        let (tags, digests) = (BTreeSet::new(), BTreeSet::new());
        Record { id, tags, digests, size, config, layers: self.rootfs.diff_ids }
    }
}

pub(crate) fn refused(object: &str, message: impl Into<String>) -> ImageError {
    ImageError::Refused { object: object.to_owned(), message: message.into() }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], object: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| refused(object, error.to_string()))
}

impl ImageStore {
    /// Loads every image of a `docker save` archive or OCI layout (a file, compressed or not, or a
    /// directory). All layers and digests are checked; a bad archive leaves no image and no file behind.
    ///
    /// # Errors
    /// [`ImageError::Refused`] if the archive is corrupt or hostile, [`ImageError::Io`] if reading fails.
    pub async fn load(&self, path: &Path) -> Result<Vec<Image>, ImageError> {
        let (store, path) = (self.clone(), path.to_path_buf());
        blocking(move || {
            let _held = store.hold_layers()?;
            let contents = if path.is_dir() {
                Contents::of_directory(&path)?
            } else {
                Contents::of_archive(&path, store.scratch()?)?
            };
            let found = if contents.has("index.json") && contents.has("oci-layout") {
                read_layout(&store, &contents)?
            } else if contents.has("manifest.json") {
                read_docker(&store, &contents)?
            } else {
                let message =
                    "it holds neither manifest.json (docker save) nor oci-layout (OCI image layout)";
                return Err(refused(&contents.name, message));
            };
            found.into_iter().map(|record| store.add_image(record)).collect()
        })
        .await
    }
}

/// The regular files of an archive or directory, by their path inside it.
struct Contents {
    name: String,
    files: HashMap<String, PathBuf>,
    _scratch: Option<Scratch>,
}

impl Contents {
    /// Spools an archive's files under names of our own: no path of the archive ever reaches the disk.
    fn of_archive(path: &Path, scratch: Scratch) -> Result<Self, ImageError> {
        let name = path.display().to_string();
        let fail = |source| ImageError::Io { step: "reading", object: name.clone(), source };
        let corrupt = |error: io::Error| refused(&name, format!("it is not a whole tar archive: {error}"));
        let mut file = File::open(path).map_err(fail)?;
        let mut magic = [0u8; 2];
        let gzip = matches!(file.read(&mut magic), Ok(2)) && magic == [0x1f, 0x8b];
        io::Seek::rewind(&mut file).map_err(fail)?;
        let stream: Box<dyn Read> =
            if gzip { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut archive = tar::Archive::new(stream);
        let (mut files, mut links) = (HashMap::new(), Vec::new());
        for (i, entry) in archive.entries().map_err(corrupt)?.enumerate() {
            let mut entry = entry.map_err(corrupt)?;
            let inside = inner_path(&entry.path().map_err(corrupt)?).ok_or_else(|| {
                refused(&name, format!("the path {:?} leads out of the archive", entry.path()))
            })?;
            if entry.header().entry_type().is_file() {
                let place = scratch.path().join(i.to_string());
                let mut out = File::create(&place).map_err(fail)?;
                io::copy(&mut entry, &mut out).map_err(corrupt)?;
                files.insert(inside, place);
            } else if let Some(target) = entry.link_name().map_err(corrupt)? {
                // Old `docker save` links layer.tar to an equal layer of another image.
                let above = Path::new(&inside).parent().unwrap_or(Path::new(""));
                let target = inner_path(&above.join(&target))
                    .ok_or_else(|| refused(&name, format!("the link {inside:?} leads out of the archive")))?;
                links.push((inside, target));
            }
        }
        for (link, target) in links {
            if let Some(place) = files.get(&target).cloned() {
                files.insert(link, place);
            }
        }
        Ok(Self { name, files, _scratch: Some(scratch) })
    }

    fn of_directory(path: &Path) -> Result<Self, ImageError> {
        let name = path.display().to_string();
        let fail = |source| ImageError::Io { step: "reading", object: name.clone(), source };
        let mut files = HashMap::new();
        let mut pending = vec![path.to_path_buf()];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(&directory).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                let kind = entry.file_type().map_err(fail)?;
                if kind.is_dir() {
                    pending.push(entry.path());
                } else if kind.is_file()
                    && let Ok(inside) = entry.path().strip_prefix(path)
                {
                    files.insert(inside.display().to_string(), entry.path());
                }
            }
        }
        Ok(Self { name, files, _scratch: None })
    }

    fn has(&self, inside: &str) -> bool {
        self.files.contains_key(inside)
    }

    fn open(&self, inside: &str) -> Result<(File, u64), ImageError> {
        let place =
            self.files.get(inside).ok_or_else(|| refused(&self.name, format!("it lacks {inside}")))?;
        let fail = |source| ImageError::Io { step: "reading", object: self.name.clone(), source };
        let file = File::open(place).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        Ok((file, size))
    }

    fn document(&self, inside: &str) -> Result<Vec<u8>, ImageError> {
        let (file, size) = self.open(inside)?;
        if size > DOCUMENT_LIMIT {
            return Err(refused(&self.name, format!("{inside} has {size} bytes, over {DOCUMENT_LIMIT}")));
        }
        let mut bytes = Vec::new();
        let fail = |source| ImageError::Io { step: "reading", object: self.name.clone(), source };
        file.take(DOCUMENT_LIMIT).read_to_end(&mut bytes).map_err(fail)?;
        Ok(bytes)
    }

    /// A document of an OCI layout, checked against its digest.
    fn blob(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let bytes = self.document(&blob_path(digest, &self.name)?)?;
        match mismatch(&bytes, digest) {
            None => Ok(bytes),
            Some(why) => Err(refused(&self.name, format!("blob {why}"))),
        }
    }
}

/// A relative path without `..`; None if it leads out.
fn inner_path(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(part) => parts.push(part.to_str()?),
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                parts.pop()?;
            }
            std::path::Component::RootDir | std::path::Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

fn blob_path(digest: &str, object: &str) -> Result<String, ImageError> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if is_hex_digest(hex) => Ok(format!("blobs/sha256/{hex}")),
        _ => Err(refused(object, format!("{digest:?} is not a sha256 digest"))),
    }
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn read_docker(store: &ImageStore, contents: &Contents) -> Result<Vec<Record>, ImageError> {
    let manifests: Vec<DockerManifest> = parse(&contents.document("manifest.json")?, &contents.name)?;
    manifests.into_iter().map(|manifest| read_docker_image(store, contents, manifest)).collect()
}

fn read_docker_image(
    store: &ImageStore,
    contents: &Contents,
    manifest: DockerManifest,
) -> Result<Record, ImageError> {
    let config = contents.document(&manifest.config)?;
    let id = digest_of(&config);
    // The config's file is named by its digest: `<hex>.json` or `blobs/sha256/<hex>`.
    let named = manifest.config.trim_end_matches(".json").rsplit('/').next().unwrap_or_default();
    if is_hex_digest(named) && id != format!("sha256:{named}") {
        return Err(refused(&contents.name, format!("config {named} has the digest {id}")));
    }
    let file = ConfigFile::parse(&config, &contents.name)?;
    let size = add_layers(store, contents, &file, &manifest.layers)?;
    let mut record = file.into_record(id, size);
    for tag in manifest.repo_tags.unwrap_or_default() {
        record.tags.insert(reference::normalize(&tag)?);
    }
    Ok(record)
}

fn add_layers(
    store: &ImageStore,
    contents: &Contents,
    config: &ConfigFile,
    paths: &[String],
) -> Result<u64, ImageError> {
    let diff_ids = config.diff_ids();
    if diff_ids.len() != paths.len() {
        let message = format!("the config names {} layers and the manifest {}", diff_ids.len(), paths.len());
        return Err(refused(&contents.name, message));
    }
    let mut total = 0;
    for (diff_id, path) in diff_ids.iter().zip(paths) {
        let (file, size) = contents.open(path)?;
        store.add_layer(io::BufReader::with_capacity(1 << 16, file), diff_id)?;
        total += size;
    }
    Ok(total)
}

fn read_layout(store: &ImageStore, contents: &Contents) -> Result<Vec<Record>, ImageError> {
    let index = match Document::parse(&contents.document("index.json")?, &contents.name)? {
        Document::Index(index) => index,
        Document::Manifest(_) => return Err(refused(&contents.name, "its index.json is no index")),
    };
    let mut records = Vec::new();
    for descriptor in index {
        let name = descriptor
            .annotations
            .get("io.containerd.image.name")
            .or_else(|| descriptor.annotations.get("org.opencontainers.image.ref.name"));
        let mut record = read_manifest(store, contents, &descriptor, 0)?;
        if let Some(name) = name {
            record.tags.insert(reference::normalize(name)?);
        }
        records.push(record);
    }
    Ok(records)
}

fn read_manifest(
    store: &ImageStore,
    contents: &Contents,
    descriptor: &Descriptor,
    depth: u8,
) -> Result<Record, ImageError> {
    let manifest = match Document::parse(&contents.blob(&descriptor.digest)?, &contents.name)? {
        Document::Manifest(manifest) => manifest,
        Document::Index(_) if depth >= DEPTH_LIMIT => {
            return Err(refused(&contents.name, "its indexes are nested too deeply"));
        }
        Document::Index(index) => {
            return read_manifest(store, contents, &ours(index, &contents.name)?, depth + 1);
        }
    };
    let config = contents.blob(&manifest.config.digest)?;
    let file = ConfigFile::parse(&config, &contents.name)?;
    let paths: Result<Vec<String>, ImageError> =
        manifest.layers.iter().map(|layer| blob_path(&layer.digest, &contents.name)).collect();
    let size = add_layers(store, contents, &file, &paths?)?;
    Ok(file.into_record(manifest.config.digest, size))
}
