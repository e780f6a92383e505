//! Root directories with software from Debian's packages and no more of a system than that needs: the programs, and the
//! libraries that they load.

use crate::{run, stdout};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Users that Debian's packages make when they are installed, which no archive brings along.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n\
     postgres:x:999:999::/var/lib/postgresql:/bin/sh\nredis:x:998:998::/var/lib/redis:/usr/sbin/nologin\n\
     nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\npostgres:x:999:\nredis:x:998:\nnogroup:x:65534:\n";

/// A shell, users, and what every image stands on. Needs busybox.
pub fn base(root: &Path) {
    for directory in ["usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "etc", "var/log", "var/lib"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    std::fs::create_dir(root.join("root")).unwrap();
    make_directory(root, "tmp", 0o1777, 0);
    make_directory(root, "run", 0o755, 0);
    symlink("/run", root.join("var/run")).unwrap();
    std::fs::write(root.join("etc/passwd"), PASSWD).unwrap();
    std::fs::write(root.join("etc/group"), GROUP).unwrap();
    let busybox = root.join("usr/bin/busybox");
    stdout(Command::new("sh").args(["-c", "cp -L \"$(command -v busybox)\" \"$0\""]).arg(&busybox));
    for name in ["sh", "sleep", "cat", "ls", "id", "kill", "mkdir", "touch", "tar", "wget"] {
        symlink("busybox", root.join("usr/bin").join(name)).unwrap();
    }
}

/// A directory with a mode and an owner.
pub fn make_directory(root: &Path, path: &str, mode: u32, owner: u32) {
    let path = root.join(path);
    std::fs::create_dir_all(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
}

/// Unpacks packages into a directory, and adds the libraries that `programs` of them load. The archives are kept below
/// `target/`.
pub fn install(root: &Path, packages: &[&str], programs: &[&str]) {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian");
    std::fs::create_dir_all(&cache).unwrap();
    let cache = cache.canonicalize().unwrap();
    for package in packages {
        unpack(&archive(&cache, package), root);
    }
    let libraries = tempfile::tempdir().unwrap();
    let mut programs: Vec<PathBuf> = programs.iter().map(|program| root.join(program)).collect();
    let mut missing = add_libraries(root, &mut programs, libraries.path());
    if !missing.is_empty() {
        unpack_libraries(&cache, packages, libraries.path());
        missing = add_libraries(root, &mut programs, libraries.path());
    }
    assert!(missing.is_empty(), "no package has {missing:?}");
}

/// The file of a package's newest version; fetched if it is not there.
fn archive(cache: &Path, package: &str) -> PathBuf {
    let place = cache.join(package);
    let present = || Some(std::fs::read_dir(&place).ok()?.next()?.unwrap().path());
    if let Some(archive) = present() {
        return archive;
    }
    // What is installed may be from elsewhere, and is not to be had.
    let newest = || {
        let versions = stdout(Command::new("apt-cache").args(["madison", package]));
        versions.lines().next().map(|line| line.split('|').nth(1).unwrap().trim().to_owned())
    };
    let scratch = tempfile::tempdir_in(cache).unwrap();
    let fetch = || {
        let version = newest()?;
        let mut command = Command::new("apt-get");
        command.args(["download", &format!("{package}={version}")]).current_dir(scratch.path());
        run(&mut command).status.success().then_some(())
    };
    if fetch().is_none() {
        // The lists are missing or older than what the archive has.
        stdout(Command::new("apt-get").args(["update", "-qq"]));
        fetch().unwrap_or_else(|| panic!("{package} cannot be fetched"));
    }
    std::fs::rename(scratch.path(), &place).unwrap();
    present().unwrap()
}

fn unpack(archive: &Path, root: &Path) {
    // Through tar, which unlike dpkg-deb alone leaves links like /bin -> usr/bin in their place.
    let script = "dpkg-deb --fsys-tarfile \"$0\" | tar -x --keep-directory-symlink -C \"$1\"";
    stdout(Command::new("sh").args(["-c", script]).arg(archive).arg(root));
}

/// Unpacks the libraries that packages stand on and this machine does not have. Compilers and interpreters for plugins
/// are left out.
fn unpack_libraries(cache: &Path, packages: &[&str], root: &Path) {
    let mut seen: BTreeSet<String> = packages.iter().map(|package| (*package).to_owned()).collect();
    let mut pending: Vec<String> = seen.iter().cloned().collect();
    while let Some(package) = pending.pop() {
        let depends = stdout(Command::new("dpkg-deb").arg("-f").arg(archive(cache, &package)).arg("Depends"));
        let names = depends.split([',', '|']).filter_map(|entry| entry.split_whitespace().next());
        for name in names.filter(|it| it.starts_with("lib") && !it.contains("llvm") && !it.contains("perl")) {
            let status = run(Command::new("dpkg-query").args(["-W", "-f", "${Status}", name])).stdout;
            let is_here = String::from_utf8_lossy(&status).ends_with("ok installed");
            if seen.insert(name.to_owned()) && !is_here {
                unpack(&archive(cache, name), root);
                pending.push(name.to_owned());
            }
        }
    }
}

/// Copies what `programs` load into the root, from the machine or from unpacked `libraries`. Gives what was not found.
fn add_libraries(root: &Path, programs: &mut Vec<PathBuf>, libraries: &Path) -> BTreeSet<String> {
    let places = [root, libraries].map(|place| {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        ["usr/lib", "lib"].map(|lib| place.join(lib).join(&triplet).display().to_string()).join(":")
    });
    let mut missing = BTreeSet::new();
    for program in programs {
        let loaded = stdout(Command::new("ldd").arg(program).env("LD_LIBRARY_PATH", places.join(":")));
        for line in loaded.lines() {
            let line = line.trim();
            if let Some((name, "not found")) = line.split_once(" => ") {
                missing.insert(name.to_owned());
            }
            let path = line.split_once(" => ").map_or(line, |(_, path)| path);
            let Some(path) = path.split(" (").next().filter(|path| path.starts_with('/')) else { continue };
            let path = Path::new(path);
            if path.starts_with(root) {
                continue;
            }
            let inside = path.strip_prefix(libraries).or_else(|_| path.strip_prefix("/")).unwrap();
            let place = root.join(inside);
            if !place.exists() {
                std::fs::create_dir_all(place.parent().unwrap()).unwrap();
                std::fs::copy(path, place).unwrap();
            }
        }
    }
    missing
}
