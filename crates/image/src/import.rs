//! An image from files at hand: a directory that is to be its root, or single files.

use crate::archive::ConfigFile;
use crate::digest::digest_of;
use crate::reference;
use crate::store::{ImageStore, blocking};
use crate::{Image, ImageError};
use std::io;
use std::path::{Path, PathBuf};

/// What the new image is to say about its process.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Name and tag, e.g. `luksa/kubia:v1`.
    pub name: String,
    /// Command to run.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; empty means `/`.
    pub working_dir: String,
    /// User; empty means root.
    pub user: String,
}

/// A file to be put into an image, mode 0755, owned by root.
#[derive(Clone, Debug)]
pub struct ImportedFile {
    /// Path inside the image, without a leading `/`.
    pub path: PathBuf,
    /// Content.
    pub content: Vec<u8>,
}

impl ImageStore {
    /// Makes a one-layer image of a directory, owners and modes kept.
    ///
    /// # Errors
    /// If the name is not one, or the directory cannot be read.
    pub async fn import(&self, directory: &Path, options: ImportOptions) -> Result<Image, ImageError> {
        let object = directory.display().to_string();
        let fail = |source| ImageError::Io { step: "importing", object: object.clone(), source };
        if !directory.is_dir() {
            return Err(fail(io::ErrorKind::NotADirectory.into()));
        }
        let (store, directory) = (self.clone(), directory.to_path_buf());
        blocking(move || {
            let scratch = store.scratch()?;
            let packed = scratch.path().join("layer.tar");
            let fail = |source| ImageError::Io { step: "importing", object, source };
            pack(&directory, &packed).map_err(fail)?;
            store.enter_single_layer(&packed, options)
        })
        .await
    }

    /// Makes a one-layer image of the given files.
    ///
    /// # Errors
    /// If the name is not one, or the store cannot be written.
    pub async fn import_files(
        &self,
        files: Vec<ImportedFile>,
        options: ImportOptions,
    ) -> Result<Image, ImageError> {
        let store = self.clone();
        blocking(move || {
            let scratch = store.scratch()?;
            let packed = scratch.path().join("layer.tar");
            let fail = |source| ImageError::Io { step: "packing", object: options.name.clone(), source };
            pack_files(&files, &packed).map_err(fail)?;
            store.enter_single_layer(&packed, options)
        })
        .await
    }

    fn enter_single_layer(&self, packed: &Path, options: ImportOptions) -> Result<Image, ImageError> {
        let name = reference::normalize(&options.name)?;
        let fail = |source| ImageError::Io { step: "importing", object: name.clone(), source };
        let bytes = std::fs::read(packed).map_err(fail)?;
        let diff_id = digest_of(&bytes);
        let config = serde_json::json!({
            "architecture": std::env::consts::ARCH, "os": "linux",
            "config": {
                "Entrypoint": options.entrypoint, "Cmd": options.cmd, "Env": options.env,
                "WorkingDir": options.working_dir, "User": options.user,
            },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let config = config.to_string().into_bytes();
        let _held = self.hold_layers()?;
        self.add_layer(&bytes[..], &diff_id)?;
        let mut record =
            ConfigFile::parse(&config, &name)?.into_record(digest_of(&config), bytes.len() as u64);
        record.tags.insert(name);
        self.add_image(record)
    }
}

fn pack(directory: &Path, packed: &Path) -> io::Result<()> {
    let mut builder = tar::Builder::new(std::fs::File::create(packed)?);
    builder.follow_symlinks(false);
    builder.append_dir_all("", directory)?;
    builder.into_inner()?.sync_data()
}

/// Times are zero, so that the same files always give the same image id.
fn pack_files(files: &[ImportedFile], packed: &Path) -> io::Result<()> {
    let mut builder = tar::Builder::new(std::fs::File::create(packed)?);
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, &file.path, &file.content[..])?;
    }
    builder.into_inner()?.sync_data()
}
