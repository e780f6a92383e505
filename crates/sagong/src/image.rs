//! `sagong image …`: works on the store directly, whether or not the cluster runs.

use crate::cli::{DataDirectory, ImageCommand};
use crate::data_dir::DataDir;
use crate::preflight;
use anyhow::{Context, Result};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use sagong_image::{Image, ImageStore, Images, ImportOptions, Keyring, Progress, normalize, pull_as_any};
use std::path::Path;

pub(crate) async fn run(command: ImageCommand) -> Result<()> {
    match command {
        ImageCommand::Load { data, file } => {
            require(&file)?;
            load(&open(&data)?, &file).await
        }
        ImageCommand::Import { data, directory, name, entrypoint, cmd, env, workdir, user } => {
            require(&directory)?;
            let store = open(&data)?;
            if directory.join("oci-layout").is_file() {
                return load(&store, &directory).await;
            }
            let name = match name {
                Some(name) => name,
                None => directory_name(&directory)?,
            };
            let options = ImportOptions { name, entrypoint, cmd, env, working_dir: workdir, user };
            announce(&store.import(&directory, options).await?);
            Ok(())
        }
        ImageCommand::Pull { data, name } => {
            let keyring = Keyring::of_machine(&[&data.data_dir]);
            pull(&open(&data)?, &name, &keyring).await
        }
        ImageCommand::List { data } => list(&open(&data)?).await,
        ImageCommand::Remove { data, names } => {
            let store = open(&data)?;
            for name in names {
                store.remove(&name).await?;
                println!("Removed {name}");
            }
            Ok(())
        }
    }
}

/// Before anything is changed: that what to read is there.
fn require(path: &Path) -> Result<()> {
    let found = std::fs::metadata(path).map(drop);
    found.with_context(|| {
        format!("cannot read {}; give an archive of `docker save`, or a directory to pack", path.display())
    })
}

/// Owners and file modes of other users are in it: not without root.
fn open(data: &DataDirectory) -> Result<ImageStore> {
    preflight::require_root()?;
    Ok(ImageStore::open(&DataDir::create(&data.data_dir)?.join("images"))?)
}

fn directory_name(directory: &Path) -> Result<String> {
    let full = directory.canonicalize().with_context(|| format!("cannot read {}", directory.display()))?;
    let name = full.file_name().with_context(|| format!("{} has no name; give one", full.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

async fn load(store: &ImageStore, path: &Path) -> Result<()> {
    for image in store.load(path).await? {
        announce(&image);
    }
    Ok(())
}

fn announce(image: &Image) {
    println!("Loaded {} ({})", image.tags.first().unwrap_or(&image.id), HumanBytes(image.size));
}

/// A pull's progress as a bar on the terminal.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn fetched(&self, bytes: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(bytes);
    }
}

async fn pull(store: &ImageStore, name: &str, keyring: &Keyring) -> Result<()> {
    let full = normalize(name)?;
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")?;
    let bar = Bar(ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_message(full.clone()));
    let image = pull_as_any(store, name, keyring.lookup(&full), &bar).await;
    bar.0.finish_and_clear();
    announce(&image?);
    Ok(())
}

async fn list(store: &ImageStore) -> Result<()> {
    let mut rows = vec![["IMAGE".to_owned(), "ID".to_owned(), "SIZE".to_owned()]];
    for image in store.list().await? {
        let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        let names = if image.tags.is_empty() { vec!["<none>".to_owned()] } else { image.tags };
        rows.extend(names.into_iter().map(|name| [name, id.clone(), HumanBytes(image.size).to_string()]));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second) = (width(0), width(1));
    for [name, id, size] in &rows {
        println!("{name:first$}   {id:second$}   {size}");
    }
    Ok(())
}
