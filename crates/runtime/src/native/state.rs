//! What is known of sandboxes and containers, on disk: one directory each, one JSON file per fact, each written by
//! one writer and replaced atomically.
//!
//! Files are not synced: after a loss of power the processes are gone too, and a record that cannot be read is
//! treated as one that is missing.

use super::process::ProcessIdentity;
use crate::{ContainerConfig, Identity, SandboxConfig};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Compiled by `build.rs`; empty where that was not possible.
const KEEPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/keeper"));

/// Where things are kept.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Records; survives a reboot.
    pub(crate) root: PathBuf,
    /// Pinned namespaces; on a file system that does not survive a reboot.
    pub(crate) run: PathBuf,
}

impl Layout {
    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    pub(crate) fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// The program that shims become; named after its contents, as those of an earlier Sagong may be running.
    pub(crate) fn keeper(&self) -> PathBuf {
        static NAME: OnceLock<String> = OnceLock::new();
        let name = NAME.get_or_init(|| {
            let mut hasher = DefaultHasher::new();
            KEEPER.hash(&mut hasher);
            format!("keeper-{:016x}", hasher.finish())
        });
        self.root.join(name)
    }

    /// Writes that program, unless it is there.
    pub(crate) fn install_keeper(&self) -> io::Result<()> {
        let path = self.keeper();
        if path.metadata().is_ok_and(|metadata| metadata.len() == KEEPER.len() as u64) {
            return Ok(());
        }
        let temporary = path.with_extension(std::process::id().to_string());
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o700)
            .open(&temporary)?
            .write_all(KEEPER)?;
        fs::rename(temporary, path)
    }

    /// Directory of the pins of a sandbox's namespaces.
    pub(crate) fn pins(&self, sandbox: &str) -> PathBuf {
        self.run.join("ns").join(sandbox)
    }
}

/// A fact kept in a file of a fixed name.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// Name of the file.
    const FILE: &'static str;

    /// Reads the fact; None if it is not known.
    fn load(directory: &Path) -> io::Result<Option<Self>> {
        match fs::read(directory.join(Self::FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the fact; a reader sees the old one or the new one, never a part.
    fn save(&self, directory: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        let path = directory.join(Self::FILE);
        let temporary = directory.join(format!(".{}.{}", Self::FILE, std::process::id()));
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?
            .write_all(&bytes)?;
        fs::rename(&temporary, &path)
    }
}

/// A sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) config: SandboxConfig,
    pub(crate) created: Timestamp,
}

/// A container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) sandbox_id: String,
    pub(crate) config: ContainerConfig,
    #[serde(default)]
    pub(crate) identity: Option<Identity>,
    pub(crate) created: Timestamp,
}

/// What the shim needs beside the OCI configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LaunchRecord {
    pub(crate) id: String,
    pub(crate) instance: String,
    /// Below the root of every hierarchy, without a leading slash.
    pub(crate) cgroup: String,
    pub(crate) log: PathBuf,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) stdin: bool,
    #[serde(default)]
    pub(crate) stdin_once: bool,
    pub(crate) tty: bool,
    /// User id the program runs as; owns its streams.
    #[serde(default)]
    pub(crate) uid: u32,
    /// The program that the shim becomes once the container runs.
    pub(crate) keeper: PathBuf,
}

/// The container's shim, written by itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ShimRecord {
    pub(crate) process: ProcessIdentity,
}

/// The container's process, written by the shim once it was executed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StartRecord {
    pub(crate) process: ProcessIdentity,
    pub(crate) started: Timestamp,
}

/// How the container ended, written by the shim, or by Sagong when the shim was killed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Timestamp,
    pub(crate) exit_code: i32,
    pub(crate) signal: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Record for SandboxRecord {
    const FILE: &'static str = "sandbox.json";
}
impl Record for ContainerRecord {
    const FILE: &'static str = "container.json";
}
impl Record for LaunchRecord {
    const FILE: &'static str = "launch.json";
}
impl Record for ShimRecord {
    const FILE: &'static str = "shim.json";
}
impl Record for StartRecord {
    const FILE: &'static str = "started.json";
}
impl Record for ExitRecord {
    const FILE: &'static str = "exit.json";
}

/// Makes a directory that only root may read, with its parents.
pub(crate) fn make_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Names in a directory; none if it does not exist.
pub(crate) fn children(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}
