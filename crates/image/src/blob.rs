//! A layer's blob, fetched into a file of the store that outlives whoever fetches it: what came so far need not come
//! again. One at a time writes to it, also of several processes, so that images which share a layer fetch it once.

use crate::ImageError;
use crate::archive::refused;
use crate::digest::{Digester, not_a_digest};
use crate::manifest::Descriptor;
use crate::registry::{Bytes, Registry, RegistryError, chain};
use crate::store::{ImageStore, blocking};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Chunks on their way from the network to the disk.
const IN_FLIGHT: usize = 32;
/// How often in a row a transfer may break without having brought anything.
const FRUITLESS: u32 = 3;
/// Before the next attempt after such a one.
const PAUSE: Duration = Duration::from_millis(200);

/// The file of a blob, whole or not, which nobody else writes to while this lives.
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
}

impl ImageStore {
    /// Opens a blob's file, waiting for whoever has it. None when `is_done` says so by then.
    pub(crate) async fn partial(
        &self,
        digest: &str,
        is_done: impl Fn() -> bool + Send + 'static,
    ) -> Result<Option<Partial>, ImageError> {
        let path = self.root().join("partial").join(digest.replace(':', "-"));
        blocking(move || {
            let fail =
                |source| ImageError::Io { step: "opening", object: path.display().to_string(), source };
            while !is_done() {
                let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
                let file = file.map_err(fail)?;
                rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|e| fail(e.into()))?;
                // Whoever had it may have removed it.
                if file.metadata().map_err(fail)?.nlink() > 0 {
                    return Ok(Some(Partial { path, file }));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Removes the files of blobs that nobody is fetching and nobody fetched for `age`.
    pub(crate) fn remove_partials(&self, age: Duration) -> Result<(), ImageError> {
        let directory = self.root().join("partial");
        let fail =
            |source| ImageError::Io { step: "cleaning", object: directory.display().to_string(), source };
        for entry in std::fs::read_dir(&directory).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let Ok(file) = File::open(&path) else { continue };
            let modified = file.metadata().and_then(|found| found.modified()).map_err(fail)?;
            let is_old = modified.elapsed().is_ok_and(|elapsed| elapsed >= age);
            if is_old && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                remove(&path).map_err(fail)?;
            }
        }
        Ok(())
    }
}

impl Partial {
    /// Fetches what is missing of the blob, and checks all of it. `told` learns by how much it grew, and shrank.
    ///
    /// When the registry fails, what came is kept; when the blob is not what the manifest says, or this machine fails
    /// (its disk may be full), it is removed.
    pub(crate) async fn fetch(
        &mut self,
        registry: &Registry,
        blob: &Descriptor,
        image: &str,
        told: &(dyn Fn(i64) + Sync),
    ) -> Result<(), ImageError> {
        let began_with = self.length()?;
        let mut result = self.complete(registry, blob, image, told).await;
        if began_with > 0 && matches!(result, Err(ImageError::Refused { .. })) {
            // What was there may have been spoiled, by a power cut say. What comes now decides.
            told(-i64::try_from(self.length()?).unwrap_or_default());
            self.file.set_len(0).map_err(|source| self.failed(source))?;
            result = self.complete(registry, blob, image, told).await;
        }
        if matches!(result, Err(ImageError::Refused { .. } | ImageError::Io { .. })) {
            let _ = self.remove();
        }
        result
    }

    /// To read the blob from its beginning.
    pub(crate) fn reader(&self) -> Result<impl Read + use<>, ImageError> {
        let mut file = self.file.try_clone().map_err(|source| self.failed(source))?;
        file.rewind().map_err(|source| self.failed(source))?;
        Ok(io::BufReader::with_capacity(1 << 16, file))
    }

    /// Removes the file. Who waits for it will find it gone.
    pub(crate) fn remove(&self) -> Result<(), ImageError> {
        remove(&self.path).map_err(|source| self.failed(source))
    }

    fn length(&self) -> Result<u64, ImageError> {
        Ok(self.file.metadata().map_err(|source| self.failed(source))?.len())
    }

    fn failed(&self, source: io::Error) -> ImageError {
        ImageError::Io { step: "writing", object: self.path.display().to_string(), source }
    }

    async fn complete(
        &mut self,
        registry: &Registry,
        blob: &Descriptor,
        image: &str,
        told: &(dyn Fn(i64) + Sync),
    ) -> Result<(), ImageError> {
        let Some(digester) = Digester::like(&blob.digest) else {
            return Err(refused(image, not_a_digest(&blob.digest)));
        };
        let file = self.file.try_clone().map_err(|source| self.failed(source))?;
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let writing = tokio::task::spawn_blocking(move || write(file, digester, receiver));
        let length = self.length()?;
        told(i64::try_from(length).unwrap_or_default());
        let received = receive(registry, blob, length, &sender, told).await;
        drop(sender);
        let written = writing.await.map_err(io::Error::other).and_then(|written| written);
        let found = written.map_err(|source| self.failed(source))?;
        match received {
            Ok(()) if found == blob.digest => Ok(()),
            Ok(()) => Err(refused(image, format!("layer {} has the digest {found}", blob.digest))),
            Err(Failure::TooLong) => {
                let message = format!("layer {} has more than the {} bytes", blob.digest, blob.size);
                Err(refused(image, message + " that its manifest says"))
            }
            Err(Failure::Registry(error)) => {
                Err(ImageError::Pull { reference: image.to_owned(), message: error.to_string() })
            }
            Err(Failure::NotWritten) => Err(self.failed(io::Error::other("the writer is gone"))),
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the thread that writes is told.
enum Step {
    Append(bytes::Bytes),
    /// All that came so far is void.
    Restart,
}

/// Writes what comes behind what the file holds, and gives the digest of all of it.
fn write(mut file: File, digester: Digester, mut steps: mpsc::Receiver<Step>) -> io::Result<String> {
    let fresh = digester.clone();
    let mut digester = digester;
    file.rewind()?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => digester.update(&buffer[..n]),
        }
    }
    while let Some(step) = steps.blocking_recv() {
        match step {
            Step::Append(bytes) => {
                digester.update(&bytes);
                file.write_all(&bytes)?;
            }
            Step::Restart => {
                digester = fresh.clone();
                file.set_len(0)?;
                file.rewind()?;
            }
        }
    }
    Ok(digester.finish())
}

/// Why a blob did not come whole.
enum Failure {
    Registry(RegistryError),
    TooLong,
    /// The writer says why.
    NotWritten,
}

/// Receives a blob of which `length` bytes are here, over as many connections as it takes.
async fn receive(
    registry: &Registry,
    blob: &Descriptor,
    mut length: u64,
    sender: &mpsc::Sender<Step>,
    told: &(dyn Fn(i64) + Sync),
) -> Result<(), Failure> {
    let mut fruitless = 0;
    while length < blob.size {
        let before = length;
        let mut response = match registry.blob(&blob.digest, length).await.map_err(Failure::Registry)? {
            Bytes::Continued(response) => response,
            Bytes::FromStart(response) => {
                told(-i64::try_from(length).unwrap_or_default());
                length = 0;
                sender.send(Step::Restart).await.map_err(|_| Failure::NotWritten)?;
                response
            }
        };
        let broken = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    length += chunk.len() as u64;
                    if length > blob.size {
                        return Err(Failure::TooLong);
                    }
                    told(i64::try_from(chunk.len()).unwrap_or_default());
                    sender.send(Step::Append(chunk)).await.map_err(|_| Failure::NotWritten)?;
                }
                Ok(None) => break "the registry sent less than its manifest says".to_owned(),
                Err(error) => break chain(&error),
            }
        };
        if length >= blob.size {
            break;
        }
        fruitless = if length > before { 0 } else { fruitless + 1 };
        if fruitless >= FRUITLESS {
            return Err(Failure::Registry(RegistryError::Nonsense(broken)));
        }
        if fruitless > 0 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    if length > blob.size { Err(Failure::TooLong) } else { Ok(()) }
}
