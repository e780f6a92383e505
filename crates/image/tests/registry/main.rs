//! Pulling, against registries that do it in every way there is, and in some that there should not be.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod authorization;
mod image;
mod interrupted;
mod refused;
mod server;
mod sharing;
mod understood;

use image::Made;
use sagong_image::{Credentials, Image, ImageError, ImageStore, Images, NoProgress};
use server::Server;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

/// A store on a disk of memory, where flushing costs nothing.
struct Fixture {
    directory: tempfile::TempDir,
    store: ImageStore,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let store = ImageStore::open(&directory.path().join("images")).unwrap();
        Self { directory, store }
    }

    /// Another process's handle on the same store.
    fn another(&self) -> ImageStore {
        ImageStore::open(&self.directory.path().join("images")).unwrap()
    }

    async fn pull(&self, server: &Server) -> Result<Image, ImageError> {
        self.store.pull(&name(server), None, &NoProgress).await
    }

    async fn pull_as(&self, server: &Server, user: &str) -> Result<Image, ImageError> {
        let credentials = Credentials { username: user.into(), password: "s3cret".into() };
        self.store.pull(&name(server), Some(credentials), &NoProgress).await
    }

    /// What is in one of the store's directories.
    fn files(&self, part: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.path().join("images").join(part)).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// A file of a layer.
    fn read(&self, diff_id: &str, file: &str) -> Option<Vec<u8>> {
        let layer = &diff_id.strip_prefix("sha256:").unwrap()[..32];
        std::fs::read(self.directory.path().join("images/layers").join(layer).join(file)).ok()
    }

    /// Nothing was entered, and nothing is left but what the next pull of `kept` blobs will go on with.
    async fn assert_clean(&self, kept: usize) {
        self.settled().await;
        assert!(self.store.list().await.unwrap().is_empty());
        assert_eq!(self.files("tmp"), Vec::<PathBuf>::new());
        assert!(self.files("partial").len() <= kept, "{:?}", self.files("partial"));
    }

    /// Waits until what a pull that failed had under way is at its end: one layer may be unpacked while another fails.
    async fn settled(&self) {
        let is_held = |path: &PathBuf| {
            let operation = rustix::fs::FlockOperation::NonBlockingLockShared;
            File::open(path).is_ok_and(|file| rustix::fs::flock(&file, operation).is_err())
        };
        while self.files("partial").iter().chain(&self.files("tmp")).any(is_held) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn name(server: &Server) -> String {
    format!("127.0.0.1:{}/kubia:v1", server.port)
}

/// A registry without quirks that has an image.
async fn plain(made: &Made) -> Server {
    let made = made.clone();
    Server::start(move |request| made.answer(request)).await
}
