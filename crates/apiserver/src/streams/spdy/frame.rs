//! Bytes to frames and back (SPDY/3, sections 2.2 and 2.6). No IO, and no more memory than the limits here.

use super::headers::{Deflate, Headers, Inflate};
use bytes::{Buf, Bytes, BytesMut};

/// Longest control frame, in bytes. Data frames are passed on in pieces, however long they are.
const MOST_CONTROL: usize = 64 * 1024;
/// Bytes before those of a frame.
const HEAD: usize = 8;
/// First bit of a control frame, and the version.
const CONTROL: u16 = 0x8003;
const FIN: u8 = 0x01;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// What the other side said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A new stream.
    Open {
        /// Its number.
        id: u32,
        /// Whether the other side says nothing on it.
        last: bool,
        /// What it is for.
        headers: Headers,
    },
    /// A new stream was accepted, or there are further headers.
    Headers {
        /// Its number.
        id: u32,
        /// Whether the other side says nothing more on it.
        last: bool,
    },
    /// Part of what is said on a stream.
    Data {
        /// Its number.
        id: u32,
        /// Whether that was all.
        last: bool,
        /// What.
        bytes: Bytes,
    },
    /// A stream is given up.
    Reset {
        /// Its number.
        id: u32,
    },
    /// To be sent back.
    Ping {
        /// Odd if it is the client's.
        id: u32,
    },
    /// No further streams will be made.
    GoAway,
}

/// What is none of the protocol's, or too much. The connection is of no use any more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Another protocol, or version of it.
    #[error("SPDY: a frame of another version")]
    Version,
    /// A frame without what it has to hold.
    #[error("SPDY: a frame is too short")]
    Short,
    /// More than anyone needs.
    #[error("SPDY: a control frame is too large")]
    TooLarge,
    /// Headers that cannot be decompressed.
    #[error("SPDY: headers cannot be decompressed")]
    Compression,
    /// Headers whose lengths do not fit, or that are not text.
    #[error("SPDY: headers are malformed")]
    Headers,
}

/// Bytes to frames.
pub(crate) struct Decoder {
    received: BytesMut,
    /// The data frame whose bytes are arriving.
    data: Option<Arriving>,
    inflate: Inflate,
}

struct Arriving {
    id: u32,
    left: usize,
    last: bool,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { received: BytesMut::new(), data: None, inflate: Inflate::new() }
    }

    /// Takes what was received. To be followed by [`Decoder::next`] until there is nothing more.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next frame, or part of one that holds data.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(arriving) = &mut self.data {
                let piece = self.received.split_to(arriving.left.min(self.received.len())).freeze();
                arriving.left -= piece.len();
                let (id, done) = (arriving.id, arriving.left == 0);
                let last = done && arriving.last;
                if done {
                    self.data = None;
                } else if piece.is_empty() {
                    return Ok(None);
                }
                return Ok(Some(Frame::Data { id, last, bytes: piece }));
            }
            let Some((head, _)) = self.received.split_first_chunk::<HEAD>() else { return Ok(None) };
            let [a, b, c, d, flags, e, f, g] = *head;
            let length = u32::from_be_bytes([0, e, f, g]) as usize;
            if a & 0x80 == 0 {
                self.received.advance(HEAD);
                let id = u32::from_be_bytes([a, b, c, d]);
                self.data = Some(Arriving { id, left: length, last: flags & FIN != 0 });
                continue;
            }
            if u16::from_be_bytes([a, b]) != CONTROL {
                return Err(FrameError::Version);
            }
            if length > MOST_CONTROL {
                return Err(FrameError::TooLarge);
            }
            if self.received.len() < HEAD + length {
                return Ok(None);
            }
            self.received.advance(HEAD);
            let body = self.received.split_to(length).freeze();
            if let Some(frame) = self.control(u16::from_be_bytes([c, d]), flags & FIN != 0, body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn control(&mut self, kind: u16, last: bool, mut body: Bytes) -> Result<Option<Frame>, FrameError> {
        Ok(Some(match kind {
            SYN_STREAM => {
                let id = number(&mut body)? & 0x7fff_ffff;
                // The stream it belongs to, its priority and slot are of no use here.
                if body.len() < 6 {
                    return Err(FrameError::Short);
                }
                Frame::Open { id, last, headers: self.inflate.read(&body[6..])? }
            }
            // Read although they say nothing of use: later headers build upon them.
            SYN_REPLY | HEADERS => {
                let id = number(&mut body)? & 0x7fff_ffff;
                self.inflate.read(&body)?;
                Frame::Headers { id, last }
            }
            RST_STREAM => Frame::Reset { id: number(&mut body)? & 0x7fff_ffff },
            PING => Frame::Ping { id: number(&mut body)? },
            GOAWAY => Frame::GoAway,
            // Settings, windows, and what may come.
            _ => return Ok(None),
        }))
    }
}

fn number(body: &mut Bytes) -> Result<u32, FrameError> {
    body.try_get_u32().map_err(|_| FrameError::Short)
}

/// Frames to bytes.
pub(crate) struct Encoder(Deflate);

impl Encoder {
    pub(crate) fn new() -> Self {
        Self(Deflate::new())
    }

    /// Accepts a stream.
    pub(crate) fn accept(&mut self, id: u32) -> Result<Vec<u8>, FrameError> {
        let block = self.0.write(&[])?;
        Ok(control(SYN_REPLY, 0, &[&id.to_be_bytes(), &block]))
    }

    /// Opens a stream. Only clients do.
    #[cfg(test)]
    pub(crate) fn open(&mut self, id: u32, last: bool, headers: &[(&str, &str)]) -> Vec<u8> {
        let block = self.0.write(headers).unwrap();
        control(SYN_STREAM, u8::from(last), &[&id.to_be_bytes(), &[0; 6], &block])
    }
}

/// What comes before the bytes of a data frame.
pub(crate) fn data_head(id: u32, last: bool, length: usize) -> [u8; HEAD] {
    let [a, b, c, d] = (id & 0x7fff_ffff).to_be_bytes();
    let [_, e, f, g] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [a, b, c, d, if last { FIN } else { 0 }, e, f, g]
}

/// Sends a ping back.
pub(crate) fn ping(id: u32) -> Vec<u8> {
    control(PING, 0, &[&id.to_be_bytes()])
}

/// Refuses a stream, or gives it up.
pub(crate) fn reset(id: u32, reason: Reason) -> Vec<u8> {
    control(RST_STREAM, 0, &[&id.to_be_bytes(), &(reason as u32).to_be_bytes()])
}

/// Says that no further stream will be accepted after this one.
pub(crate) fn go_away(last: u32) -> Vec<u8> {
    control(GOAWAY, 0, &[&last.to_be_bytes(), &[0; 4]])
}

/// Why a stream is reset.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Reason {
    /// It is none of the protocol's.
    Protocol = 1,
    /// There are too many, or it is not wanted.
    Refused = 3,
    /// It is not served any longer.
    Cancelled = 5,
}

fn control(kind: u16, flags: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let [_, e, f, g] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = Vec::with_capacity(HEAD + length);
    frame.extend_from_slice(&CONTROL.to_be_bytes());
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(&[flags, e, f, g]);
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// All frames in these bytes, given in pieces of some size; data of one frame put together again.
    fn decode(bytes: &[u8], sizes: &[usize]) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::new();
        let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
        let (mut frames, mut partial) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            let size = sizes.next().map_or(rest.len(), |size| (*size).clamp(1, rest.len()));
            let (piece, after) = rest.split_at(size);
            decoder.push(piece);
            rest = after;
            while let Some(frame) = decoder.next()? {
                match frame {
                    Frame::Data { id, last, bytes } => {
                        partial.extend_from_slice(&bytes);
                        if decoder.data.is_none() {
                            let bytes = Bytes::from(std::mem::take(&mut partial));
                            frames.push(Frame::Data { id, last, bytes });
                        }
                    }
                    frame => frames.push(frame),
                }
            }
            assert!(decoder.received.len() < HEAD + MOST_CONTROL);
        }
        Ok(frames)
    }

    fn conversation(texts: &[(String, Vec<u8>)]) -> (Vec<u8>, Vec<Frame>) {
        let (mut encoder, mut bytes, mut frames) = (Encoder::new(), Vec::new(), Vec::new());
        for (index, (name, data)) in texts.iter().enumerate() {
            let id = 2 * index as u32 + 1;
            bytes.extend(encoder.open(id, false, &[("streamtype", name)]));
            let headers = vec![("streamtype".to_owned(), name.clone())];
            frames.push(Frame::Open { id, last: false, headers });
            bytes.extend(control(4, 0, &[&[0; 12]]));
            bytes.extend(ping(id));
            frames.push(Frame::Ping { id });
            bytes.extend(data_head(id, index % 2 == 0, data.len()));
            bytes.extend(data);
            frames.push(Frame::Data { id, last: index % 2 == 0, bytes: data.clone().into() });
            bytes.extend(encoder.accept(id).unwrap());
            frames.push(Frame::Headers { id, last: false });
            bytes.extend(reset(id, Reason::Refused));
            frames.push(Frame::Reset { id });
        }
        bytes.extend(go_away(1));
        frames.push(Frame::GoAway);
        (bytes, frames)
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_they_are_cut(
            texts in prop::collection::vec(("[a-z]{0,30}", prop::collection::vec(any::<u8>(), 0..300)), 0..6),
            sizes in prop::collection::vec(1usize..200, 1..8),
        ) {
            let (bytes, frames) = conversation(&texts);
            prop_assert_eq!(decode(&bytes, &sizes).unwrap(), frames);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, sizes in prop::collection::vec(1usize..50, 1..4)) {
            let _ = decode(&bytes, &sizes);
        }

        #[test]
        fn no_damage_panics(at in any::<prop::sample::Index>(), with: u8) {
            let (mut bytes, _) = conversation(&[("stdin".into(), vec![1, 2, 3]), ("error".into(), vec![])]);
            let at = at.index(bytes.len());
            bytes[at] = with;
            let _ = decode(&bytes, &[7]);
        }
    }

    #[rstest]
    #[case::another_version(&[0x80, 2, 0, 1, 0, 0, 0, 0], FrameError::Version)]
    #[case::an_http_answer_is_data(&[0x80, 3, 0, 6, 0, 0, 0, 0], FrameError::Short)]
    #[case::a_short_stream(&[0x80, 3, 0, 1, 0, 0, 0, 5, 0, 0, 0, 1, 0], FrameError::Short)]
    #[case::a_large_one(&[0x80, 3, 0, 8, 0, 0xff, 0xff, 0xff], FrameError::TooLarge)]
    #[case::no_headers(&[0x80, 3, 0, 8, 0, 0, 0, 4, 0, 0, 0, 1], FrameError::Headers)]
    #[case::no_compression(&[0x80, 3, 0, 8, 0, 0, 0, 8, 0, 0, 0, 1, 9, 9, 9, 9], FrameError::Compression)]
    fn what_is_no_frame_is_refused(#[case] bytes: &[u8], #[case] error: FrameError) {
        assert_eq!(decode(bytes, &[3]), Err(error));
    }

    #[test]
    fn a_frame_of_16_mib_is_passed_on_in_pieces() {
        let mut decoder = Decoder::new();
        decoder.push(&data_head(1, true, 0xff_ffff));
        assert_eq!(decoder.next(), Ok(None));
        let (mut left, mut ended) = (0xff_ffffusize, false);
        while left > 0 {
            let piece = left.min(10_000);
            decoder.push(&vec![7; piece]);
            left -= piece;
            let Ok(Some(Frame::Data { id: 1, last, bytes })) = decoder.next() else { panic!("data") };
            assert_eq!(bytes.len(), piece);
            assert!(decoder.received.is_empty());
            ended = last;
        }
        assert!(ended);
    }
}
