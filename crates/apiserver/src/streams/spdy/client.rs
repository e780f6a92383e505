//! A client, for tests.

use super::frame::{Decoder, Encoder, Frame, data_head};
use bytes::Bytes;
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// The other side of a connection.
pub(crate) struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
    next: u32,
    /// What was said on each stream, and whether that was all.
    pub(crate) heard: HashMap<u32, (Vec<u8>, bool)>,
    /// Streams that were refused.
    pub(crate) refused: Vec<u32>,
}

impl Client {
    pub(crate) fn new(io: DuplexStream) -> Self {
        let (heard, refused) = Default::default();
        Self { io, encoder: Encoder::new(), decoder: Decoder::new(), next: 1, heard, refused }
    }

    /// Opens a stream and gives its number.
    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next;
        self.next += 2;
        let frame = self.encoder.open(id, false, headers);
        self.io.write_all(&frame).await.unwrap();
        id
    }

    pub(crate) async fn say(&mut self, id: u32, bytes: &[u8], last: bool) {
        self.io.write_all(&data_head(id, last, bytes.len())).await.unwrap();
        self.io.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    /// Listens until something holds, or the server hangs up (false).
    pub(crate) async fn until(&mut self, done: impl Fn(&Self) -> bool) -> bool {
        let listen = async {
            let mut buffer = [0; 4096];
            loop {
                while let Some(frame) = self.decoder.next().unwrap() {
                    match frame {
                        Frame::Data { id, last, bytes } => self.hear(id, &bytes, last),
                        Frame::Reset { id } => self.refused.push(id),
                        // Go's framer takes no other.
                        Frame::Ping { id } => assert_ne!(id, 0),
                        _ => {}
                    }
                }
                if done(self) {
                    return true;
                }
                let length = self.io.read(&mut buffer).await.unwrap();
                if length == 0 {
                    return false;
                }
                self.decoder.push(&buffer[..length]);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), listen).await.unwrap()
    }

    fn hear(&mut self, id: u32, bytes: &Bytes, last: bool) {
        let heard = self.heard.entry(id).or_default();
        heard.0.extend_from_slice(bytes);
        heard.1 |= last;
    }

    /// Whether all was said on a stream.
    pub(crate) fn ended(&self, id: u32) -> bool {
        self.heard.get(&id).is_some_and(|heard| heard.1)
    }

    /// What was said on a stream.
    pub(crate) fn text(&self, id: u32) -> String {
        self.heard.get(&id).map(|heard| String::from_utf8_lossy(&heard.0).into_owned()).unwrap_or_default()
    }
}
