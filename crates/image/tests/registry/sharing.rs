//! Pulls that go on at the same time.

use crate::image::{Made, gzip, tar_of};
use crate::server::{Answer, Server};
use crate::{Fixture, name};
use sagong_image::{Images, NoProgress};
use std::path::PathBuf;

#[tokio::test]
async fn a_layer_that_several_pulls_need_is_fetched_once() {
    let shared = tar_of(&[("shared", b"shared")]);
    let image = |own: &[u8]| {
        let own = tar_of(&[("own", own)]);
        Made::of(&[(shared.clone(), gzip(&shared)), (own.clone(), gzip(&own))])
    };
    let images = [image(b"one"), image(b"two")];
    let (fixture, layer) = (Fixture::new(), images[0].layer(0));
    let served = (images.clone(), layer.clone());
    let server = Server::start(move |request| {
        let index = usize::from(request.path.starts_with("/v2/two/"));
        match request.path.ends_with(&served.1) {
            true => Answer { stall: Some(10), ..served.0[index].answer(request) },
            false => served.0[index].answer(request),
        }
    })
    .await;
    let name = |repository: &str| format!("127.0.0.1:{}/{repository}:v1", server.port);
    let (here, there) = (&fixture.store, fixture.another());
    let let_go = async {
        // Both are past their manifests and their own layers, and one has the shared layer's beginning.
        server.stalled().await;
        while images.iter().any(|image| server.seen_of(&image.layer(1)).is_empty()) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        server.go_on();
    };
    let (names, progress) = ([name("one"), name("two")], NoProgress);
    let (one, two, same, ()) = tokio::join!(
        here.pull(&names[0], None, &progress),
        there.pull(&names[1], None, &progress),
        here.pull(&names[0], None, &progress),
        let_go
    );
    assert_eq!(one.unwrap(), same.unwrap());
    two.unwrap();
    assert_eq!(server.seen_of(&layer).len(), 1);
    assert_eq!(fixture.files("layers").len(), 3);
    assert_eq!(fixture.files("partial"), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn an_image_that_names_a_layer_twice_is_pulled() {
    let layer = tar_of(&[("app", b"x")]);
    let parts = (layer.clone(), gzip(&layer));
    let (fixture, made) = (Fixture::new(), Made::of(&[parts.clone(), parts]));
    let server = crate::plain(&made).await;
    fixture.pull(&server).await.unwrap();
    assert_eq!(server.seen_of(&made.layer(0)).len(), 1);
}

#[tokio::test]
async fn nothing_is_cleaned_away_under_a_pull() {
    let (fixture, made) = (Fixture::new(), Made::small(b"x"));
    let (served, layer) = (made.clone(), made.layer(0));
    let server = Server::start(move |request| match request.path.ends_with(&layer) {
        true => Answer { stall: Some(10), ..served.answer(request) },
        false => served.answer(request),
    })
    .await;
    let cleaner = fixture.another();
    let cleaning = async {
        server.stalled().await;
        cleaner.prune().await.unwrap();
        server.go_on();
    };
    let (pulled, ()) = tokio::join!(fixture.pull(&server), cleaning);
    pulled.unwrap();
    assert_eq!(server.seen_of(&made.layer(0)).len(), 1, "{}", name(&server));
}
