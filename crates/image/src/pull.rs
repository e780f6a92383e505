//! Images from a registry (OCI distribution spec).

use crate::archive::{ConfigFile, digest_of, refused};
use crate::reference::{self, is_loopback};
use crate::store::{ImageStore, Record, blocking};
use crate::{Credentials, Image, ImageError, Progress};
use futures::{StreamExt, TryStreamExt};
use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Layers fetched at once, as containerd does.
const PARALLEL: usize = 3;

/// Fetches an image. Calls for one name wait for each other, so that a layer is fetched once.
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
    Pull::new(store, reference, credentials)?.run(progress).await
}

struct Pull<'a> {
    store: &'a ImageStore,
    reference: Reference,
    client: Client,
    auth: RegistryAuth,
}

impl<'a> Pull<'a> {
    fn new(
        store: &'a ImageStore,
        reference: Reference,
        credentials: Option<Credentials>,
    ) -> Result<Self, ImageError> {
        // Fails only if one is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let protocol =
            if is_loopback(reference.registry()) { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(Duration::from_secs(15)),
            read_timeout: Some(Duration::from_secs(60)),
            ..ClientConfig::default()
        };
        let auth = match credentials {
            Some(Credentials { username, password }) => RegistryAuth::Basic(username, password),
            None => RegistryAuth::Anonymous,
        };
        let client = Client::try_from(config)
            .map_err(|error| ImageError::Pull { reference: reference.whole(), message: chain(&error) })?;
        Ok(Self { store, reference, client, auth })
    }

    fn failed(&self, error: &OciDistributionError) -> ImageError {
        let message = match error {
            // In the words people search for; what the registry says is no more than that.
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => {
                let given = match self.auth {
                    RegistryAuth::Anonymous => "no credentials were given",
                    _ => "the credentials given were refused",
                };
                format!(
                    "pull access denied, repository does not exist or may require authorization: {given}: {}",
                    chain(error)
                )
            }
            _ => chain(error),
        };
        ImageError::Pull { reference: self.reference.whole(), message }
    }

    /// The registry stopped answering half way.
    fn broken(&self, error: &dyn Error) -> ImageError {
        ImageError::Pull { reference: self.reference.whole(), message: chain(error) }
    }

    async fn run(&self, progress: &dyn Progress) -> Result<Image, ImageError> {
        let whole = self.reference.whole();
        let (manifest, digest, config, list) = self
            .client
            .pull_manifest_and_config_and_list_digest(&self.reference, &self.auth)
            .await
            .map_err(|error| self.failed(&error))?;
        let id = digest_of(config.as_bytes());
        if manifest.config.digest != id {
            return Err(refused(&whole, format!("config {} has the digest {id}", manifest.config.digest)));
        }
        let file = ConfigFile::parse(config.as_bytes(), &whole)?;
        if file.diff_ids().len() != manifest.layers.len() {
            return Err(refused(&whole, "the config and the manifest do not name as many layers"));
        }
        let size = manifest.layers.iter().map(|layer| u64::try_from(layer.size).unwrap_or(0)).sum();
        let _held = self.store.hold_layers()?;
        let layers: Vec<_> = file.diff_ids().iter().cloned().zip(manifest.layers).collect();
        self.fetch_layers(layers, size, progress).await?;

        let mut record = file.into_record(id, size);
        self.name(&mut record, &list.unwrap_or(digest));
        let store = self.store.clone();
        blocking(move || store.add_image(record)).await
    }

    fn name(&self, record: &mut Record, digest: &str) {
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        record.digests.insert(format!("{registry}/{repository}@{digest}"));
        if self.reference.digest().is_none() {
            record.tags.insert(self.reference.whole());
        }
    }

    async fn fetch_layers(
        &self,
        layers: Vec<(String, OciDescriptor)>,
        total: u64,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let fetched = AtomicU64::new(0);
        progress.fetched(0, total);
        futures::stream::iter(layers)
            .map(|(diff_id, layer)| self.fetch_layer(diff_id, layer, &fetched, total, progress))
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<()>>()
            .await?;
        progress.fetched(total, total);
        Ok(())
    }

    async fn fetch_layer(
        &self,
        diff_id: String,
        layer: OciDescriptor,
        fetched: &AtomicU64,
        total: u64,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        if self.store.has_layer(&diff_id) {
            let size = u64::try_from(layer.size).unwrap_or(0);
            progress.fetched(fetched.fetch_add(size, Ordering::Relaxed) + size, total);
            return Ok(());
        }
        let scratch = self.store.scratch()?;
        let path = scratch.path().join("layer");
        let fail = |source| ImageError::Io { step: "writing layer", object: diff_id.clone(), source };
        let mut file = tokio::fs::File::create(&path).await.map_err(fail)?;
        // The stream checks the bytes against the descriptor's digest as they pass.
        let mut stream = self
            .client
            .pull_blob_stream(&self.reference, &layer)
            .await
            .map_err(|error| self.failed(&error))?;
        while let Some(chunk) = stream.stream.next().await {
            let chunk = chunk.map_err(|error| self.broken(&error))?;
            file.write_all(&chunk).await.map_err(fail)?;
            let size = chunk.len() as u64;
            progress.fetched(fetched.fetch_add(size, Ordering::Relaxed) + size, total);
        }
        file.flush().await.map_err(fail)?;
        let store = self.store.clone();
        blocking(move || {
            let fail = |source| ImageError::Io { step: "reading layer", object: diff_id.clone(), source };
            let file = std::fs::File::open(scratch.path().join("layer")).map_err(fail)?;
            store.add_layer(std::io::BufReader::with_capacity(1 << 16, file), &diff_id)
        })
        .await
    }
}

/// An error with all its causes, each told once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
