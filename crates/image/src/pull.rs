//! Images from a registry (OCI distribution spec).

use crate::archive::{ConfigFile, refused};
use crate::digest::{Digester, digest_of, mismatch, not_a_digest};
use crate::manifest::{DEPTH_LIMIT, Descriptor, Document, Manifest, ours};
use crate::reference;
use crate::registry::{Registry, RegistryError};
use crate::store::{ImageStore, Record, blocking};
use crate::{Credentials, Image, ImageError, Progress};
use futures::{StreamExt, TryStreamExt};
use oci_spec::distribution::Reference;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Layers fetched at once, as containerd does.
const PARALLEL: usize = 3;

/// Fetches an image. Calls for one name wait for each other, so that its manifest is fetched once.
pub(crate) async fn pull(
    store: &ImageStore,
    name: &str,
    credentials: Option<Credentials>,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let reference = reference::parse(name)?;
    let lock = {
        let mut pulls = store.pulls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        pulls.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(pulls.entry(reference.whole()).or_default())
    };
    let _one_at_a_time = lock.lock().await;
    let whole = reference.whole();
    let registry = Registry::new(&store.clients, &reference, credentials);
    let registry = registry.map_err(|error| failed(&whole, &error))?;
    Pull { store, reference, whole, registry }.run(progress).await
}

fn failed(whole: &str, error: &RegistryError) -> ImageError {
    ImageError::Pull { reference: whole.to_owned(), message: error.to_string() }
}

struct Pull<'a> {
    store: &'a ImageStore,
    reference: Reference,
    /// Its name in full.
    whole: String,
    registry: Registry,
}

impl Pull<'_> {
    async fn run(&self, progress: &dyn Progress) -> Result<Image, ImageError> {
        let name = self.reference.digest().or(self.reference.tag()).unwrap_or("latest");
        let (manifest, digest) = self.manifest(name).await?;
        let config = self.registry.document(&manifest.config.digest).await;
        let config = config.map_err(|error| failed(&self.whole, &error))?;
        if let Some(why) = mismatch(&config, &manifest.config.digest) {
            return Err(refused(&self.whole, format!("config {why}")));
        }
        let file = ConfigFile::parse(&config, &self.whole)?;
        if file.diff_ids().len() != manifest.layers.len() {
            return Err(refused(&self.whole, "the config and the manifest do not name as many layers"));
        }
        let size = manifest.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        let _held = self.store.hold_layers()?;
        let layers: Vec<_> = file.diff_ids().iter().cloned().zip(manifest.layers).collect();
        self.fetch_layers(layers, size, progress).await?;

        let mut record = file.into_record(digest_of(&config), size);
        self.name(&mut record, &digest);
        let store = self.store.clone();
        blocking(move || store.add_image(record)).await
    }

    /// The manifest for this machine, and the digest of what the name leads to, which is that of an index if there is
    /// one.
    async fn manifest(&self, name: &str) -> Result<(Manifest, String), ImageError> {
        let (mut next, mut named) = (name.to_owned(), None);
        for _ in 0..=DEPTH_LIMIT {
            let bytes = self.registry.manifest(&next).await.map_err(|error| failed(&self.whole, &error))?;
            if next.contains(':')
                && let Some(why) = mismatch(&bytes, &next)
            {
                return Err(refused(&self.whole, format!("manifest {why}")));
            }
            let digest = if next.contains(':') { next } else { digest_of(&bytes) };
            let named = named.get_or_insert(digest);
            match Document::parse(&bytes, &self.whole)? {
                Document::Manifest(manifest) => return Ok((manifest, named.clone())),
                Document::Index(index) => next = ours(index, &self.whole)?.digest,
            }
        }
        Err(refused(&self.whole, "its indexes are nested too deeply"))
    }

    fn name(&self, record: &mut Record, digest: &str) {
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        record.digests.insert(format!("{registry}/{repository}@{digest}"));
        if self.reference.digest().is_none() {
            record.tags.insert(self.whole.clone());
        }
    }

    async fn fetch_layers(
        &self,
        layers: Vec<(String, Descriptor)>,
        total: u64,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let fetched = AtomicI64::new(0);
        let told = |more: i64| {
            let now = fetched.fetch_add(more, Ordering::Relaxed).saturating_add(more);
            progress.fetched(u64::try_from(now).unwrap_or_default(), total);
        };
        told(0);
        futures::stream::iter(layers)
            .map(|(diff_id, layer)| self.fetch_layer(diff_id, layer, &told))
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<()>>()
            .await?;
        progress.fetched(total, total);
        Ok(())
    }

    async fn fetch_layer(
        &self,
        diff_id: String,
        layer: Descriptor,
        told: &(dyn Fn(i64) + Sync),
    ) -> Result<(), ImageError> {
        if Digester::like(&layer.digest).is_none() {
            return Err(refused(&self.whole, not_a_digest(&layer.digest)));
        }
        let is_here = {
            let (store, diff_id) = (self.store.clone(), diff_id.clone());
            move || store.has_layer(&diff_id)
        };
        let Some(mut blob) = self.store.partial(&layer.digest, is_here).await? else {
            told(i64::try_from(layer.size).unwrap_or_default());
            return Ok(());
        };
        blob.fetch(&self.registry, &layer, &self.whole, told).await?;
        let store = self.store.clone();
        blocking(move || {
            // Good or bad, it has served: what is kept of a layer is its files.
            let added = blob.reader().and_then(|reader| store.add_layer(reader, &diff_id));
            let removed = blob.remove();
            added.and(removed)
        })
        .await
    }
}
