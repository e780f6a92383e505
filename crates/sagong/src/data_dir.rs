//! The data directory: what is where, which cluster it is, and whether that cluster runs.
//!
//! ```text
//! cluster.json   how the cluster was started      kubeconfig   for the administrator (0600)
//! state.redb     the objects                      pki/         keys and certificates (0600)
//! images/        the image store                  runtime/     sandboxes and containers
//! pods/          volumes and files of pods        logs/        of containers
//! lock           held while the cluster runs      sagong.log   of `up -d`
//! ```

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A cluster's directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
}

/// How a cluster was started: what `status`, `down` and `tunnel` need to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterConfig {
    pub(crate) port: u16,
    pub(crate) pod_cidr: Ipv4Net,
    pub(crate) service_cidr: Ipv4Net,
    pub(crate) load_balancer: bool,
    #[serde(default = "most_pods")]
    pub(crate) max_pods: u32,
}

/// Clusters that were made before the option take as many as they did.
fn most_pods() -> u32 {
    sagong_kubelet::MOST_PODS
}

impl ClusterConfig {
    /// The options of `sagong up` that give this and not the other one, with what they are here.
    pub(crate) fn unlike(&self, other: &Self) -> Vec<String> {
        let options = |config: &Self| {
            [
                format!("--port {}", config.port),
                format!("--pod-cidr {}", config.pod_cidr),
                format!("--service-cidr {}", config.service_cidr),
                format!("{} load balancer", if config.load_balancer { "with" } else { "without" }),
                format!("--max-pods {}", config.max_pods),
            ]
        };
        let pairs = options(self).into_iter().zip(options(other));
        pairs.filter_map(|(here, there)| (here != there).then_some(here)).collect()
    }
}

/// Held while the cluster runs. Released when dropped, or when the process ends in whatever way.
pub(crate) struct Lock {
    _file: Flock<File>,
}

impl DataDir {
    /// The directory, made if need be (0700).
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let object = path.display();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make {object}"))?;
        Self::existing(path)?.with_context(|| format!("{object} is gone"))
    }

    /// The directory, if there is one.
    pub(crate) fn existing(path: &Path) -> Result<Option<Self>> {
        match fs::canonicalize(path) {
            Ok(path) if path.is_dir() => Ok(Some(Self { path })),
            Ok(_) => bail!("{} is not a directory; choose another --data-dir", path.display()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The directory, which need not exist yet: nothing is made.
    pub(crate) fn planned(path: &Path) -> Result<Self> {
        if let Some(data) = Self::existing(path)? {
            return Ok(data);
        }
        let path = std::path::absolute(path).with_context(|| format!("cannot tell where {path:?} is"))?;
        let missing = |base: &Path| path.strip_prefix(base).map(Path::to_owned).unwrap_or_default();
        let base = path.ancestors().find_map(|base| Some((fs::canonicalize(base).ok()?, missing(base))));
        Ok(Self { path: base.map_or_else(|| path.clone(), |(base, missing)| base.join(missing)) })
    }

    /// The directory itself, without links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where a part of it is.
    pub(crate) fn join(&self, part: &str) -> PathBuf {
        self.path.join(part)
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.join("kubeconfig")
    }

    /// Six hex digits that name everything this cluster makes on the host: bridge, nft table, cgroups.
    /// FNV-1a of the path, folded to 24 bits.
    pub(crate) fn instance(&self) -> String {
        use std::os::unix::ffi::OsStrExt;
        let hash = self.path.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{:06x}", (hash ^ (hash >> 24) ^ (hash >> 48)) & 0xff_ffff)
    }

    /// Takes the lock, or tells the process that holds it.
    pub(crate) fn lock(&self) -> Result<Result<Lock, u32>> {
        let path = self.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match held(file, &path)? {
            Ok(mut file) => {
                file.set_len(0).and_then(|()| file.rewind())?;
                write!(file, "{}", std::process::id())?;
                self.sweep();
                Ok(Ok(Lock { _file: file }))
            }
            Err(pid) => Ok(Err(pid)),
        }
    }

    /// Removes what [`write_private`] left half-written when its process was killed. To be called by whoever has the
    /// lock: nobody else writes here.
    fn sweep(&self) {
        let names = fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_half = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let pid = name.rsplit_once(".new.").map(|(_, pid)| pid);
            pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
        };
        for half in names.filter(is_half) {
            let _ = fs::remove_file(half);
        }
    }

    /// The process that runs this cluster, if one does. Writes nothing: the directory's disk may be read-only.
    pub(crate) fn running(&self) -> Result<Option<u32>> {
        let path = self.join("lock");
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(|| format!("cannot open {}", path.display()))?,
        };
        held(file, &path).map(Result::err)
    }

    /// Like [`Self::lock`], for taking the cluster down: on a read-only disk, too, where nobody can start it.
    pub(crate) fn lock_to_end(&self) -> Result<Result<Lock, u32>> {
        let path = self.join("lock");
        match File::open(&path) {
            Ok(file) => Ok(held(file, &path)?.map(|file| Lock { _file: file })),
            Err(_) => self.lock(),
        }
    }

    /// How the cluster was last started; None if it never was.
    pub(crate) fn config(&self) -> Result<Option<ClusterConfig>> {
        let path = self.join("cluster.json");
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes)
                    .with_context(|| format!("cannot understand {}", path.display()))?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Keeps how the cluster was started.
    pub(crate) fn set_config(&self, config: &ClusterConfig) -> Result<()> {
        write_private(&self.join("cluster.json"), &serde_json::to_vec_pretty(config)?)
    }
}

/// Locks a file, or tells the process that it names.
fn held(file: File, path: &Path) -> Result<Result<Flock<File>, u32>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(Ok(file)),
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            Ok(Err(pid.trim().parse().unwrap_or(0)))
        }
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Replaces a file in one step, readable by its owner only.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension(format!("new.{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&new)))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_is_six_hex_digits_and_follows_links() {
        let outer = tempfile::tempdir().unwrap();
        let data = DataDir::create(&outer.path().join("a")).unwrap();
        std::os::unix::fs::symlink(data.path(), outer.path().join("b")).unwrap();
        let linked = DataDir::existing(&outer.path().join("b")).unwrap().unwrap();
        assert_eq!(data.instance(), linked.instance());
        assert_eq!(data.instance().len(), 6);
        assert!(data.instance().bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    }

    #[test]
    fn a_directory_that_is_only_planned_has_the_instance_it_will_have() {
        let outer = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outer.path(), outer.path().join("link")).unwrap();
        let path = outer.path().join("link/a/b");
        let planned = DataDir::planned(&path).unwrap();
        assert_eq!(planned.running().unwrap(), None);
        assert!(!outer.path().join("a").exists());
        assert_eq!(DataDir::create(&path).unwrap().instance(), planned.instance());
    }

    #[test]
    fn a_second_lock_tells_who_holds_the_first() {
        let outer = tempfile::tempdir().unwrap();
        let data = DataDir::create(outer.path()).unwrap();
        assert_eq!(data.running().unwrap(), None);
        let lock = data.lock().unwrap().ok().unwrap();
        assert_eq!(data.running().unwrap(), Some(std::process::id()));
        drop(lock);
        assert_eq!(data.running().unwrap(), None);
    }

    #[test]
    fn what_was_half_written_when_a_process_was_killed_is_swept_away() {
        let outer = tempfile::tempdir().unwrap();
        let data = DataDir::create(outer.path()).unwrap();
        for name in ["kubeconfig", "kubeconfig.new.123", "cluster.new.45", "sagong.new.log"] {
            fs::write(data.join(name), "").unwrap();
        }
        let _lock = data.lock().unwrap().ok().unwrap();
        let mut left: Vec<_> =
            fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["kubeconfig", "lock", "sagong.new.log"]);
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_an_error_that_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDir::existing(file.path()).unwrap_err();
        assert!(error.to_string().contains("is not a directory"), "{error}");
    }
}
