//! The image store: a directory that several processes (a running Sagong, `sagong image`) may use at once.
//!
//! ```text
//! index.json            what images there are; replaced whole, under a lock on index.lock
//! layers/<32 hex>/      unpacked layers, named by their diff id (short: overlayfs takes one page of options)
//! snapshots/<key>/      writable file systems of containers
//! partial/<digest>      blobs being fetched, or as far as they came when that was interrupted
//! tmp/                  what is being unpacked; renamed into place when whole
//! ```

use crate::layer::{self, LayerError};
use crate::{Credentials, Image, ImageConfig, ImageError, Images, Progress, pull, reference, registry};
use async_trait::async_trait;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// After this long nobody will come back for what a pull left.
const ABANDONED: Duration = Duration::from_secs(3600);

/// An image as the index keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) digests: BTreeSet<String>,
    pub(crate) size: u64,
    pub(crate) config: ImageConfig,
    /// Diff ids, lowest layer first.
    pub(crate) layers: Vec<String>,
}

impl From<Record> for Image {
    fn from(record: Record) -> Self {
        Self {
            id: record.id,
            tags: record.tags.into_iter().collect(),
            digests: record.digests.into_iter().collect(),
            size: record.size,
            config: record.config,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Index {
    images: Vec<Record>,
}

/// Pulls under way, by normalised name: a second caller waits for the first.
pub(crate) type PullLocks = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// The images under one directory.
#[derive(Clone)]
pub struct ImageStore {
    root: Arc<PathBuf>,
    pub(crate) pulls: Arc<PullLocks>,
    pub(crate) clients: Arc<registry::Clients>,
}

impl ImageStore {
    /// Opens the store, making the directory (0700) if it is not there.
    ///
    /// # Errors
    /// If the directory cannot be made or written.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let fail = |source| ImageError::Io {
            step: "opening image store",
            object: root.display().to_string(),
            source,
        };
        for part in ["", "layers", "snapshots", "partial", "tmp"] {
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(root.join(part)).map_err(fail)?;
        }
        Ok(Self { root: Arc::new(root.to_path_buf()), pulls: Arc::default(), clients: Arc::default() })
    }

    /// Deletes what interrupted loads and pulls left, and layers that nothing uses any more. What a pull fetched is
    /// kept for the next one, for an hour.
    ///
    /// # Errors
    /// If a directory cannot be read or emptied.
    pub fn clean(&self) -> Result<(), ImageError> {
        self.remove_unused(ABANDONED)
    }

    fn remove_unused(&self, age: Duration) -> Result<(), ImageError> {
        let tmp = self.root.join("tmp");
        let fail = |source| ImageError::Io { step: "cleaning", object: tmp.display().to_string(), source };
        for entry in std::fs::read_dir(&tmp).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            // Locked: another process is at work there.
            if Scratch::lock(&path).is_ok_and(|lock| lock.is_some()) {
                crate::remove_tree(&path).map_err(fail)?;
            }
        }
        self.remove_partials(age)?;
        self.sweep_layers()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where an unpacked layer is. The name is 128 bits of its diff id.
    pub(crate) fn layer(&self, diff_id: &str) -> PathBuf {
        let hex = diff_id.strip_prefix("sha256:").unwrap_or(diff_id);
        self.root.join("layers").join(hex.get(..32).unwrap_or(hex))
    }

    /// An empty directory of one's own, removed on drop.
    pub(crate) fn scratch(&self) -> Result<Scratch, ImageError> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = self.root.join("tmp").join(name);
            let made = crate::remove_tree(&path).and_then(|()| std::fs::create_dir(&path));
            let locked = made.and_then(|()| Scratch::lock(&path)).map_err(|source| ImageError::Io {
                step: "making",
                object: path.display().to_string(),
                source,
            })?;
            // None: somebody cleans up, and it is gone already.
            if let Some(lock) = locked {
                return Ok(Scratch { path, _lock: lock });
            }
        }
    }

    /// Unpacks a layer, unless it is there, and checks that it is the one the image's config names.
    pub(crate) fn add_layer(&self, layer: impl Read, diff_id: &str) -> Result<(), ImageError> {
        let place = self.layer(diff_id);
        if place.exists() {
            return Ok(());
        }
        let scratch = self.scratch()?;
        let fs = scratch.path().join("fs");
        let fail = |source| ImageError::Io { step: "unpacking layer", object: diff_id.to_owned(), source };
        std::fs::create_dir(&fs).map_err(fail)?;
        std::fs::set_permissions(&fs, std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(fail)?;
        let found = layer::unpack(layer, &fs).map_err(|error| match error {
            LayerError::Io { source, .. } if is_of_the_machine(&source) => fail(source),
            other => ImageError::Refused { object: format!("layer {diff_id}"), message: other.to_string() },
        })?;
        if found != diff_id {
            let message = format!("its digest is {found}");
            return Err(ImageError::Refused { object: format!("layer {diff_id}"), message });
        }
        match std::fs::rename(&fs, &place) {
            Err(_) if place.exists() => Ok(()), // another process was quicker
            other => other.map_err(fail),
        }
    }

    pub(crate) fn has_layer(&self, diff_id: &str) -> bool {
        self.layer(diff_id).exists()
    }

    /// Enters an image whose layers are all there. A tag moves here from the image that had it.
    pub(crate) fn add_image(&self, new: Record) -> Result<Image, ImageError> {
        let fail = |source| ImageError::Io { step: "entering image", object: new.id.clone(), source };
        layer::sync(&self.root).map_err(fail)?;
        self.change(|index| {
            for old in &mut index.images {
                old.tags.retain(|tag| !new.tags.contains(tag));
            }
            let record = match index.images.iter_mut().find(|image| image.id == new.id) {
                Some(old) => {
                    old.tags.extend(new.tags.iter().cloned());
                    old.digests.extend(new.digests.iter().cloned());
                    old.clone()
                }
                None => {
                    index.images.push(new.clone());
                    new.clone()
                }
            };
            record.into()
        })
    }

    /// The record of a name or id.
    pub(crate) fn record(&self, reference: &str) -> Result<Option<Record>, ImageError> {
        let images = self.read()?.images;
        if reference::is_id(reference) {
            return Ok(images.into_iter().find(|image| image.id == reference));
        }
        let name = reference::parse(reference)?;
        let whole = name.whole();
        // With a digest, the tag says nothing.
        let digest =
            name.digest().map(|digest| format!("{}/{}@{digest}", name.registry(), name.repository()));
        Ok(images.into_iter().find(|image| match &digest {
            Some(digest) => image.digests.contains(digest),
            None => image.tags.contains(&whole),
        }))
    }

    fn remove_image(&self, reference: &str) -> Result<(), ImageError> {
        let record = self.record(reference)?.ok_or_else(|| ImageError::NotFound(reference.to_owned()))?;
        if !reference::is_id(reference) && record.tags.len() > 1 {
            let tag = reference::normalize(reference)?;
            return self.change(|index| {
                for image in &mut index.images {
                    image.tags.remove(&tag);
                }
            });
        }
        self.change(|index| index.images.retain(|image| image.id != record.id))?;
        self.sweep_layers()
    }

    /// Held while layers are being added that no image names yet: keeps [`Self::sweep_layers`] away.
    pub(crate) fn hold_layers(&self) -> Result<File, ImageError> {
        let path = self.root.join("layers.lock");
        let fail = |source| ImageError::Io { step: "locking", object: path.display().to_string(), source };
        let lock = File::create(&path).map_err(fail)?;
        rustix::fs::flock(&lock, FlockOperation::LockShared).map_err(|e| fail(e.into()))?;
        Ok(lock)
    }

    /// Deletes layers that no image and no container uses. Does nothing while layers are being added; the
    /// next sweep finds them.
    fn sweep_layers(&self) -> Result<(), ImageError> {
        let layers = self.root.join("layers");
        let fail = |source| ImageError::Io { step: "sweeping", object: layers.display().to_string(), source };
        let lock = File::create(self.root.join("layers.lock")).map_err(fail)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        let mut used: BTreeSet<PathBuf> = self
            .read()?
            .images
            .iter()
            .flat_map(|image| &image.layers)
            .map(|layer| self.layer(layer))
            .collect();
        for key in self.snapshot_keys()? {
            used.extend(self.snapshot_layers(&key)?);
        }
        for entry in std::fs::read_dir(&layers).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if !used.contains(&path) {
                crate::remove_tree(&path).map_err(fail)?;
            }
        }
        Ok(())
    }

    fn read(&self) -> Result<Index, ImageError> {
        let path = self.root.join("index.json");
        let fail = |source| ImageError::Io { step: "reading", object: path.display().to_string(), source };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| fail(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(fail(error)),
        }
    }

    /// Changes the index under the lock, and replaces the file in one rename.
    fn change<T>(&self, change: impl FnOnce(&mut Index) -> T) -> Result<T, ImageError> {
        let path = self.root.join("index.json");
        let fail = |source| ImageError::Io { step: "writing", object: path.display().to_string(), source };
        let lock = File::create(self.root.join("index.lock")).map_err(fail)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| fail(e.into()))?;
        let mut index = self.read()?;
        let result = change(&mut index);
        let bytes = serde_json::to_vec_pretty(&index).map_err(|e| fail(e.into()))?;
        let new = self.root.join("index.json.new");
        let mut file = File::create(&new).map_err(fail)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(fail)?;
        std::fs::rename(&new, &path).map_err(fail)?;
        Ok(result)
    }
}

/// Whether it is this machine that failed, and not the archive that is bad.
fn is_of_the_machine(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied)
}

/// A directory below `tmp`, gone when dropped. It is locked, so that others can tell it from one that was left.
pub(crate) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// None if somebody else has locked or removed it.
    fn lock(path: &Path) -> io::Result<Option<File>> {
        let directory = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            other => other?,
        }
        Ok((directory.metadata()?.nlink() > 0).then_some(directory))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = crate::remove_tree(&self.path);
    }
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(ImageError::Io { step: "running", object: "image work".into(), source: io::Error::other(error) })
    })
}

#[async_trait]
impl Images for ImageStore {
    async fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let (store, reference) = (self.clone(), reference.to_owned());
        blocking(move || Ok(store.record(&reference)?.map(Into::into))).await
    }

    async fn pull(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        pull::pull(self, reference, credentials, progress).await
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        let store = self.clone();
        blocking(move || Ok(store.read()?.images.into_iter().map(Into::into).collect())).await
    }

    async fn remove(&self, id: &str) -> Result<(), ImageError> {
        let (store, id) = (self.clone(), id.to_owned());
        blocking(move || store.remove_image(&id)).await
    }

    async fn prune(&self) -> Result<(), ImageError> {
        let store = self.clone();
        blocking(move || store.remove_unused(Duration::ZERO)).await
    }

    async fn mount(&self, image_id: &str, key: &str) -> Result<PathBuf, ImageError> {
        let (store, image_id, key) = (self.clone(), image_id.to_owned(), key.to_owned());
        blocking(move || store.mount_snapshot(&image_id, &key)).await
    }

    async fn unmount(&self, key: &str) -> Result<(), ImageError> {
        let (store, key) = (self.clone(), key.to_owned());
        blocking(move || store.unmount_snapshot(&key)).await
    }

    async fn mounted(&self) -> Result<Vec<String>, ImageError> {
        let store = self.clone();
        blocking(move || store.snapshot_keys()).await
    }
}
