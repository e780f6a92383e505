//! Watches: events line by line, until somebody presses Ctrl-C.

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use bytes::BytesMut;
use http::Method;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;

/// Lines of a body that comes bit by bit.
pub(crate) struct Lines {
    body: Body,
    buffer: BytesMut,
    /// When there are no more lines, whatever the server has to say.
    end: Option<tokio::time::Instant>,
}

impl Lines {
    /// Over a body.
    pub(crate) fn new(body: Body) -> Self {
        Self { body, buffer: BytesMut::new(), end: None }
    }

    /// The next line with its newline, or what is left at the end; None after that.
    pub(crate) async fn next(&mut self) -> Option<Outcome<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                return Some(Ok(self.buffer.split_to(end + 1).to_vec()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Some(Err(Failure::Message(error.to_string()))),
                None if self.buffer.is_empty() => return None,
                None => return Some(Ok(self.buffer.split().to_vec())),
            }
        }
    }
}

/// Begins a watch.
///
/// # Errors
/// The server refuses.
pub(crate) async fn open(
    context: &Context,
    path: &str,
    query: &[(String, String)],
    accept: &str,
) -> Outcome<Lines> {
    let query: Vec<(&str, &str)> = query.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let response = context.client().await?.send(Method::GET, path, &query, None, accept).await?;
    Ok(Lines::new(response.into_body()))
}

/// The same for one that `--request-timeout` ends.
///
/// # Errors
/// The server refuses.
pub(crate) async fn open_for_a_time(
    context: &Context,
    path: &str,
    query: &[(String, String)],
    accept: &str,
) -> Outcome<Lines> {
    let mut lines = open(context, path, query, accept).await?;
    lines.end = context.client().await?.patience().map(|patience| tokio::time::Instant::now() + patience);
    Ok(lines)
}

/// The next event; None at the end.
pub(crate) async fn next(lines: &mut Lines) -> Option<Outcome<Value>> {
    let line = lines.next().await?;
    Some(line.and_then(|line| {
        serde_json::from_slice(&line).map_err(|error| {
            Failure::Message(format!("unable to decode an event from the watch stream: {error}"))
        })
    }))
}

/// The same; Ctrl-C ends it with code 1, as it ends kubectl's watches.
pub(crate) async fn next_or_interrupt(lines: &mut Lines) -> Option<Outcome<Value>> {
    let end = lines.end;
    let over = async {
        match end {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        event = next(lines) => event,
        () = over => None,
        _ = tokio::signal::ctrl_c() => Some(Err(Failure::Exit(1))),
    }
}
