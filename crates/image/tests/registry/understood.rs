//! All forms of images that registries have.

use crate::image::{Made, digest, gzip, tar_of};
use crate::server::{Answer, Server};
use crate::{Fixture, name, plain};
use rstest::rstest;
use sagong_image::{Images, NoProgress};
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn gzip_of_two_members(bytes: &[u8]) -> Vec<u8> {
    let (first, second) = bytes.split_at(700);
    [gzip(first), gzip(second)].concat()
}

#[rstest]
#[case::gzip(gzip)]
#[case::gzip_of_two_members(gzip_of_two_members)]
#[case::zstd(zstd)]
#[case::plain(<[u8]>::to_vec)]
#[tokio::test]
async fn layers_come_in_every_compression(#[case] pack: fn(&[u8]) -> Vec<u8>) {
    let layer = tar_of(&[("app", b"hello"), ("etc/motd", b"hi")]);
    let (fixture, made) = (Fixture::new(), Made::of(&[(layer.clone(), pack(&layer))]));
    let server = plain(&made).await;
    let image = fixture.pull(&server).await.unwrap();
    assert_eq!(image.id, digest(&made.config));
    assert_eq!(image.tags, [name(&server)]);
    assert_eq!(image.config.cmd, ["/app"]);
    assert_eq!(fixture.read(&made.diff_ids[0], "etc/motd").unwrap(), b"hi");
    assert_eq!(fixture.files("partial"), Vec::<PathBuf>::new());
    assert_eq!(fixture.files("tmp"), Vec::<PathBuf>::new());
    // Again: the layer is here.
    fixture.pull(&server).await.unwrap();
    assert_eq!(server.seen_of(&made.layer(0)).len(), 1);
}

fn entry(digest: &str, os: &str, architecture: &str) -> Value {
    json!({ "digest": digest, "size": 1, "platform": { "os": os, "architecture": architecture } })
}

#[rstest]
#[case::image(0)]
#[case::index(1)]
#[case::index_in_an_index(2)]
#[tokio::test]
async fn the_image_of_an_index_for_this_platform_is_taken(#[case] depth: usize) {
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let (fixture, made) = (Fixture::new(), Made::small(b"x"));
    let mut documents = vec![made.manifest_bytes()];
    for _ in 0..depth {
        let below = digest(documents.last().unwrap());
        let strange = digest(b"of another platform");
        let entries = [
            json!({ "digest": strange, "size": 1 }),
            entry(&strange, "windows", architecture),
            entry(&strange, "linux", "s390x"),
            entry(&below, "linux", architecture),
        ];
        documents.push(json!({ "schemaVersion": 2, "manifests": entries }).to_string().into_bytes());
    }
    let top = documents.last().unwrap().clone();
    let served = (made.clone(), documents.clone());
    let server = Server::start(move |request| {
        let asked = request.path.rsplit('/').next().unwrap();
        let is_it = |document: &&Vec<u8>| asked == "v1" || asked == digest(document);
        match served.1.iter().rev().find(is_it) {
            Some(document) if request.path.contains("/manifests/") => Answer::ok(document.clone()),
            _ => served.0.answer(request),
        }
    })
    .await;
    let image = fixture.pull(&server).await.unwrap();
    let by_digest = format!("127.0.0.1:{}/kubia@{}", server.port, digest(&top));
    assert_eq!(image.digests, std::slice::from_ref(&by_digest), "named by the digest that others see, too");
    assert_eq!(fixture.store.find(&by_digest).await.unwrap().unwrap().id, image.id);
    let accept = server.seen()[0].header("accept").unwrap().to_owned();
    for kind in
        ["vnd.oci.image.index.v1", "vnd.docker.distribution.manifest.list.v2", "vnd.oci.image.manifest.v1"]
    {
        assert!(accept.contains(kind), "{accept}");
    }
    // By digest it is the same image, without a tag.
    let other = Fixture::new();
    let image = other.store.pull(&by_digest, None, &NoProgress).await.unwrap();
    assert_eq!((image.id, image.tags), (digest(&made.config), vec![]));
}

/// A layer in whose files everything is that a tar archive can hold.
fn strange_layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, path: &str, link: &str, content: &[u8], mode: u32, uid: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(uid);
        header.set_mtime(1_000_000);
        if path == "bin/ping" {
            let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let attributes = [("SCHILY.xattr.security.capability", &capability[..])];
            builder.append_pax_extensions(attributes).unwrap();
        }
        match link {
            "" => builder.append_data(&mut header, path, content).unwrap(),
            link => builder.append_link(&mut header, path, link).unwrap(),
        }
    };
    use tar::EntryType::{Directory, Fifo, Link, Regular, Symlink};
    add(Directory, "bin/", "", b"", 0o755, 0);
    add(Regular, "bin/ping", "", b"ping", 0o4755, 0);
    add(Link, "bin/ping6", "bin/ping", b"", 0o4755, 0);
    add(Symlink, "bin/sh", "/bin/ping", b"", 0o777, 0);
    add(Fifo, "pipe", "", b"", 0o600, 7);
    add(Regular, "var/lib/data", "", b"data", 0o640, 33);
    add(Regular, ".wh.gone", "", b"", 0o644, 0);
    add(Regular, "hidden/.wh..wh..opq", "", b"", 0o644, 0);
    add(Regular, "hidden/new", "", b"new", 0o644, 0);
    builder.into_inner().unwrap()
}

/// Unmounts also when the test fails.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn what_layers_hold_arrives_in_the_container() {
    let lower = tar_of(&[("gone", b"x"), ("hidden/old", b"x"), ("kept", b"kept"), ("bin/other", b"other")]);
    let upper = strange_layer();
    let made = Made::of(&[(lower.clone(), zstd(&lower)), (upper.clone(), gzip(&upper))]);
    let (fixture, server) = (Fixture::new(), plain(&made).await);
    let image = fixture.pull(&server).await.unwrap();
    let root = fixture.store.mount(&image.id, "pod").await.unwrap();
    let _mounted = Mounted(root.clone());
    assert_eq!(std::fs::read(root.join("kept")).unwrap(), b"kept");
    assert_eq!(std::fs::read(root.join("bin/other")).unwrap(), b"other");
    assert!(!root.join("gone").exists(), "a whiteout hides the file below");
    let hidden: Vec<_> =
        std::fs::read_dir(root.join("hidden")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(hidden, ["new"], "an opaque directory hides all that is below");
    let (ping, ping6) =
        (root.join("bin/ping").metadata().unwrap(), root.join("bin/ping6").metadata().unwrap());
    assert_eq!((ping.ino(), ping.nlink(), ping.mtime()), (ping6.ino(), 2, 1_000_000));
    assert_eq!(ping.mode() & 0o7777, 0o4755);
    assert_eq!(std::fs::read_link(root.join("bin/sh")).unwrap(), PathBuf::from("/bin/ping"));
    assert!(root.join("pipe").metadata().unwrap().file_type().is_fifo());
    let data = root.join("var/lib/data").metadata().unwrap();
    assert_eq!((data.uid(), data.gid(), data.mode() & 0o777), (33, 33, 0o640));
    let mut value = [0_u8; 64];
    let length = rustix::fs::getxattr(root.join("bin/ping"), "security.capability", &mut value).unwrap();
    assert_eq!(length, 20);
}
