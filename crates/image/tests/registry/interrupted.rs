//! Pulls that are held up, interrupted and cut off, and how they go on.

use crate::image::{Made, tar_of};
use crate::server::{Answer, Request, Server};
use crate::{Fixture, plain};
use rstest::rstest;
use sagong_image::Images;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Answers as told at first, then as a registry without quirks.
async fn at_first(made: &Made, part: &'static str, answers: Vec<Answer>) -> Server {
    let (made, count) = (made.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        if request.path.contains(part)
            && let Some(answer) = answers.get(count.fetch_add(1, Ordering::SeqCst))
        {
            return answer.clone();
        }
        made.answer(request)
    });
    server.await
}

#[rstest]
#[case::too_many_requests(429, Some("0"), 1)]
#[case::twice(503, Some("0"), 2)]
#[case::a_date_that_is_past(503, Some("Thu, 01 Jan 1970 00:00:01 GMT"), 3)]
#[case::by_its_own_measure(502, None, 1)]
#[tokio::test]
async fn a_busy_registry_is_asked_again(
    #[case] status: u16,
    #[case] retry_after: Option<&str>,
    #[case] times: usize,
    #[values("/manifests/", "/blobs/")] part: &'static str,
) {
    let (fixture, made) = (Fixture::new(), Made::small(b"x"));
    let mut busy = Answer::status(status);
    if let Some(after) = retry_after {
        busy = busy.with("Retry-After", after);
    }
    let server = at_first(&made, part, vec![busy; times]).await;
    fixture.pull(&server).await.unwrap();
    assert_eq!(server.seen().len(), 3 + times);
}

#[tokio::test]
async fn as_long_as_it_says_nobody_asks_again() {
    let (fixture, made) = (Fixture::new(), Made::small(b"x"));
    let server = at_first(&made, "/manifests/", vec![Answer::status(429).with("Retry-After", "1")]).await;
    let began = Instant::now();
    fixture.pull(&server).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[rstest]
#[case::always_busy("0", 4, "the registry answered 503 Service Unavailable (try again in 0 s): later")]
#[case::busy_for_too_long(
    "3600",
    1,
    "the registry answered 503 Service Unavailable (try again in 3600 s): later"
)]
#[tokio::test]
async fn patience_ends(#[case] retry_after: &'static str, #[case] asked: usize, #[case] why: &str) {
    let fixture = Fixture::new();
    let server = Server::start(move |_| {
        Answer { body: b"later".to_vec(), ..Answer::status(503) }.with("Retry-After", retry_after)
    })
    .await;
    let error = fixture.pull(&server).await.unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
    assert_eq!(server.seen().len(), asked);
}

/// Noise, which no compression makes small.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let step = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 33) as u8
    };
    (0..length).map(|_| step(&mut state)).collect()
}

fn ranges(requests: &[Request]) -> Vec<Option<&str>> {
    requests.iter().map(|request| request.header("range")).collect()
}

/// A connection that breaks after 1000 bytes of the layer, and then what `after` makes of the next request.
async fn breaking(made: &Made, after: fn(&Made, &Request) -> Answer) -> Server {
    let (made, count) = (made.clone(), AtomicUsize::new(0));
    let layer = made.layer(0);
    let server = Server::start(move |request| {
        if !request.path.ends_with(&layer) {
            return made.answer(request);
        }
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => Answer { cut: Some(1000), ..made.answer(request) },
            1 => after(&made, request),
            _ => made.answer(request),
        }
    });
    server.await
}

fn goes_on(made: &Made, request: &Request) -> Answer {
    made.answer(request)
}

fn breaks_again(made: &Made, request: &Request) -> Answer {
    Answer { cut: Some(500), ..made.answer(request) }
}

fn breaks_before_a_byte(made: &Made, request: &Request) -> Answer {
    Answer { cut: Some(0), ..made.answer(request) }
}

fn begins_anew(made: &Made, request: &Request) -> Answer {
    made.answer(&Request { path: request.path.clone(), ..Request::default() })
}

fn knows_no_ranges(_: &Made, _: &Request) -> Answer {
    Answer::status(416)
}

#[rstest]
#[case::goes_on(goes_on, vec![None, Some("bytes=1000-")])]
#[case::breaks_again(breaks_again, vec![None, Some("bytes=1000-"), Some("bytes=1500-")])]
#[case::breaks_before_a_byte(breaks_before_a_byte, vec![None, Some("bytes=1000-"), Some("bytes=1000-")])]
#[case::begins_anew(begins_anew, vec![None, Some("bytes=1000-")])]
#[case::knows_no_ranges(knows_no_ranges, vec![None, Some("bytes=1000-"), None])]
#[tokio::test]
async fn a_transfer_that_breaks_goes_on_where_it_was(
    #[case] after: fn(&Made, &Request) -> Answer,
    #[case] expected: Vec<Option<&str>>,
) {
    let (fixture, made) = (Fixture::new(), Made::small(&noise(5000)));
    let server = breaking(&made, after).await;
    fixture.pull(&server).await.unwrap();
    assert_eq!(ranges(&server.seen_of(&made.layer(0))), expected);
    assert_eq!(fixture.read(&made.diff_ids[0], "app").unwrap(), noise(5000));
}

#[tokio::test]
async fn bytes_from_elsewhere_are_not_taken() {
    let (fixture, made) = (Fixture::new(), Made::small(&noise(5000)));
    let server = breaking(&made, |_, _| {
        Answer { status: 206, ..Answer::ok(vec![0; 10]) }.with("Content-Range", "bytes 7-16/5000")
    })
    .await;
    let error = fixture.pull(&server).await.unwrap_err().to_string();
    assert!(error.contains("where those from 1000 on were asked for"), "{error}");
    fixture.assert_clean(1).await;
}

#[tokio::test]
async fn a_transfer_that_brings_nothing_is_given_up() {
    let (fixture, made) = (Fixture::new(), Made::small(&noise(5000)));
    let (served, layer) = (made.clone(), made.layer(0));
    let server = Server::start(move |request| match request.path.ends_with(&layer) {
        true => Answer { cut: Some(0), ..served.answer(request) },
        false => served.answer(request),
    })
    .await;
    fixture.pull(&server).await.unwrap_err();
    assert_eq!(server.seen_of(&made.layer(0)).len(), 3);
}

#[tokio::test]
async fn what_a_power_cut_spoiled_is_fetched_anew() {
    let (fixture, made) = (Fixture::new(), Made::small(&noise(5000)));
    let server = plain(&made).await;
    let partial = fixture.directory.path().join("images/partial").join(made.layer(0).replace(':', "-"));
    for spoiled in [vec![0; 1000], vec![0; made.blobs[&made.layer(0)].len()], vec![0; 100_000]] {
        std::fs::write(&partial, spoiled).unwrap();
        let image = fixture.pull(&server).await.unwrap();
        assert_eq!(fixture.read(&made.diff_ids[0], "app").unwrap(), noise(5000));
        assert!(!partial.exists());
        fixture.store.remove(&image.id).await.unwrap();
    }
}

/// Cut off after every byte that the registry sends, the store is sound, and the next pull brings what is missing and
/// no more.
#[tokio::test]
async fn a_pull_may_be_interrupted_at_every_byte() {
    let layers = [tar_of(&[("app", b"one")]), tar_of(&[("lib", b"two")])];
    let made = Made::of(&layers.map(|layer| (layer.clone(), crate::image::gzip(&layer))));
    let (fixture, server) = (Fixture::new(), plain(&made).await);
    let allowed = 1 << 40;
    server.allow(allowed);
    let mut image = fixture.pull(&server).await.unwrap();
    let sent = allowed - server.left();
    let mut resumed = 0;
    for bytes in 0..sent {
        fixture.store.remove(&image.id).await.unwrap();
        server.allow(bytes);
        fixture.pull(&server).await.unwrap_err();
        fixture.assert_clean(2).await;
        for (diff_id, file, content) in [(0, "app", b"one"), (1, "lib", b"two")] {
            let found = fixture.read(&made.diff_ids[diff_id], file);
            assert!(found.is_none_or(|found| found == content), "half a layer after {bytes} bytes");
        }
        let partials: Vec<(String, u64)> =
            fixture.files("partial").iter().map(|path| described(path)).collect();
        let before = server.seen().len();

        server.allow(allowed);
        image = fixture.pull(&server).await.unwrap();
        assert_eq!(fixture.store.list().await.unwrap(), slice::from_ref(&image));
        assert_eq!(fixture.read(&made.diff_ids[0], "app").unwrap(), b"one");
        assert_eq!(fixture.read(&made.diff_ids[1], "lib").unwrap(), b"two");
        assert_eq!(fixture.files("partial"), Vec::<PathBuf>::new());
        for request in &server.seen()[before..] {
            let begun =
                partials.iter().find(|(digest, length)| request.path.ends_with(digest) && *length > 0);
            assert_eq!(request.header("range").map(str::to_owned), begun.map(|(_, n)| format!("bytes={n}-")));
            resumed += usize::from(begun.is_some());
        }
    }
    assert!(resumed > 100, "{resumed} of {sent}");
}

/// The digest and the length of a blob that came in part.
fn described(path: &Path) -> (String, u64) {
    let name = path.file_name().unwrap().to_string_lossy().replace('-', ":");
    (name, path.metadata().unwrap().len())
}

#[tokio::test]
async fn who_is_killed_while_pulling_leaves_what_came_to_the_next() {
    let (fixture, made) = (Fixture::new(), Made::small(&noise(50_000)));
    let (served, layer) = (made.clone(), made.layer(0));
    let server = Server::start(move |request| match request.path.ends_with(&layer) {
        true if request.header("range").is_none() => Answer { stall: Some(30_000), ..served.answer(request) },
        _ => served.answer(request),
    })
    .await;
    {
        let pull = fixture.pull(&server);
        tokio::pin!(pull);
        let arrived = async {
            server.stalled().await;
            let partial = || fixture.files("partial").first().map(|path| path.metadata().unwrap().len());
            while partial() != Some(30_000) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            result = &mut pull => panic!("{result:?}"),
            () = arrived => {}
        }
    }
    fixture.assert_clean(1).await;
    fixture.another().clean().unwrap();
    fixture.pull(&server).await.unwrap();
    assert_eq!(ranges(&server.seen_of(&made.layer(0))), [None, Some("bytes=30000-")]);

    // Unless the space is needed more.
    std::fs::write(fixture.directory.path().join("images/partial/sha256-ab"), "x").unwrap();
    fixture.store.clean().unwrap();
    assert_eq!(fixture.files("partial").len(), 1);
    fixture.store.prune().await.unwrap();
    assert_eq!(fixture.files("partial"), Vec::<PathBuf>::new());
    assert_eq!(fixture.read(&made.diff_ids[0], "app").unwrap(), noise(50_000));
}
