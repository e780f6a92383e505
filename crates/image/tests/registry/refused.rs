//! What is not as its manifest says is refused, and leaves nothing.

use crate::image::{Made, digest, gzip, tar_of};
use crate::server::{Answer, Server};
use crate::{Fixture, plain};
use rstest::rstest;
use sagong_image::{ImageError, Images, NoProgress};
use serde_json::json;
use std::path::PathBuf;

/// Puts other bytes where those of a digest should be.
fn spoil(made: &mut Made, digest: &str, change: impl FnOnce(&mut Vec<u8>)) {
    change(made.blobs.get_mut(digest).unwrap());
}

fn other_layer(made: &mut Made) {
    let layer = made.layer(0);
    spoil(made, &layer, |bytes| *bytes.last_mut().unwrap() ^= 1);
}

fn longer_layer(made: &mut Made) {
    let layer = made.layer(0);
    spoil(made, &layer, |bytes| bytes.push(0));
}

fn longer_than_said(made: &mut Made) {
    let size = made.manifest["layers"][0]["size"].as_u64().unwrap();
    made.manifest["layers"][0]["size"] = json!(size - 1);
}

fn other_config(made: &mut Made) {
    let config = digest(&made.config);
    spoil(made, &config, |bytes| bytes.push(b' '));
}

fn layer_of_another_image(made: &mut Made) {
    let layer = tar_of(&[("app", b"evil")]);
    let sent = gzip(&layer);
    made.manifest["layers"][0] = json!({ "digest": digest(&sent), "size": sent.len() });
    made.blobs.insert(digest(&sent), sent);
}

fn one_layer_more(made: &mut Made) {
    let layer = made.manifest["layers"][0].clone();
    made.manifest["layers"].as_array_mut().unwrap().push(layer);
}

fn digest_that_is_a_path(made: &mut Made) {
    made.manifest["layers"][0]["digest"] = json!("sha256:../../../etc/passwd");
}

fn leads_out(made: &mut Made) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..7].copy_from_slice(b"../evil");
    header.set_size(0);
    header.set_cksum();
    builder.append(&header, &b""[..]).unwrap();
    let layer = builder.into_inner().unwrap();
    *made = Made::of(&[(layer.clone(), gzip(&layer))]);
}

fn no_archive(made: &mut Made) {
    *made = Made::of(&[(vec![7; 4096], vec![7; 4096])]);
}

fn cut_compression(made: &mut Made) {
    let layer = tar_of(&[("app", &[7; 9000])]);
    let mut sent = gzip(&layer);
    sent.truncate(sent.len() / 2);
    *made = Made::of(&[(layer, sent)]);
}

#[rstest]
#[case::layer(other_layer, "has the digest")]
#[case::longer_layer(longer_layer, "has more than the")]
#[case::size(longer_than_said, "has more than the")]
#[case::config(other_config, "config")]
#[case::diff_id(layer_of_another_image, "its digest is")]
#[case::count(one_layer_more, "do not name as many layers")]
#[case::path(digest_that_is_a_path, "is not a sha256")]
#[case::hostile(leads_out, "leads out of the layer")]
#[case::no_archive(no_archive, "layer sha256:")]
#[case::cut_compression(cut_compression, "layer sha256:")]
#[tokio::test]
async fn what_is_not_what_it_should_be_is_refused(#[case] change: fn(&mut Made), #[case] why: &str) {
    let (fixture, mut made) = (Fixture::new(), Made::small(b"x"));
    change(&mut made);
    let server = plain(&made).await;
    let error = fixture.pull(&server).await.unwrap_err();
    assert!(matches!(error, ImageError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(why), "{error}");
    fixture.assert_clean(0).await;
    assert_eq!(fixture.files("layers"), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_layer_shorter_than_its_manifest_says_is_waited_for_in_vain() {
    let (fixture, mut made) = (Fixture::new(), Made::small(b"x"));
    let size = made.manifest["layers"][0]["size"].as_u64().unwrap();
    made.manifest["layers"][0]["size"] = json!(size + 1);
    let server = plain(&made).await;
    let error = fixture.pull(&server).await.unwrap_err().to_string();
    assert!(error.contains("less than its manifest says"), "{error}");
    fixture.assert_clean(1).await;
}

#[tokio::test]
async fn a_manifest_that_is_not_the_one_asked_for_is_refused() {
    let (fixture, made) = (Fixture::new(), Made::small(b"x"));
    let served = made.clone();
    let server = Server::start(move |request| match request.path.contains("/manifests/") {
        true => Answer::ok([served.manifest_bytes(), b" ".to_vec()].concat()),
        false => served.answer(request),
    })
    .await;
    let name = format!("127.0.0.1:{}/kubia@{}", server.port, digest(&made.manifest_bytes()));
    let error = fixture.store.pull(&name, None, &NoProgress).await.unwrap_err();
    assert!(matches!(error, ImageError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("has the digest"), "{error}");
    fixture.assert_clean(0).await;
}

#[rstest]
#[case::unknown(Answer { body: br#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}"#.to_vec(), ..Answer::status(404) }, "not found: manifest unknown")]
#[case::forbidden(Answer { body: b"go away".to_vec(), ..Answer::status(403) }, "pull access denied, repository does not exist or may require authorization: no credentials were given: go away")]
#[case::no_json(Answer::ok(b"<html>".to_vec()), "manifest: expected value")]
#[case::teapot(Answer::status(418), "the registry answered 418 I'm a teapot: 418")]
#[case::redirected_for_ever(Answer::status(302).with("Location", "/v2/kubia/manifests/v1"), "too many redirects")]
#[case::a_flood(Answer::ok(vec![b' '; 9 << 20]), "a document over 8388608 bytes")]
#[tokio::test]
async fn a_manifest_that_does_not_come_says_why(#[case] answer: Answer, #[case] why: &str) {
    let fixture = Fixture::new();
    let server = Server::start(move |_| answer.clone()).await;
    let error = fixture.pull(&server).await.unwrap_err().to_string();
    assert!(error.contains(&crate::name(&server)), "{error}");
    assert!(error.contains(why), "{error}");
    fixture.assert_clean(0).await;
}
