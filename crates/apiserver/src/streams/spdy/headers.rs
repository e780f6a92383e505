//! Lists of headers, compressed with what was said before on the connection (SPDY/3, section 2.6.10).

use super::dictionary::DICTIONARY;
use super::frame::FrameError;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// Longest list, in bytes, once decompressed.
const MOST_BYTES: usize = 64 * 1024;
/// Most headers in a list.
const MOST_HEADERS: usize = 128;

/// Names, in lower case, and values.
pub(crate) type Headers = Vec<(String, String)>;

/// Reads lists, in the order in which they were written.
pub(super) struct Inflate(Decompress);

/// Writes lists.
pub(super) struct Deflate(Compress);

impl Inflate {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Decompresses a list. After an error the connection is of no use.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Headers, FrameError> {
        let broken = |_| FrameError::Compression;
        let mut plain = Vec::with_capacity(1024);
        let start = self.0.total_in();
        loop {
            let used = usize::try_from(self.0.total_in() - start).unwrap_or(block.len());
            let rest = block.get(used..).unwrap_or_default();
            let before = (self.0.total_in(), plain.len());
            match self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(broken)?;
                    continue;
                }
                Err(error) => return Err(broken(error)),
            }
            let full = plain.len() == plain.capacity();
            if full && plain.len() >= MOST_BYTES {
                return Err(FrameError::TooLarge);
            }
            if full {
                plain.reserve_exact(plain.capacity().min(MOST_BYTES - plain.len()));
            } else if before == (self.0.total_in(), plain.len()) {
                break;
            }
        }
        parse(&plain)
    }
}

impl Deflate {
    pub(super) fn new() -> Self {
        let mut zlib = Compress::new(Compression::fast(), true);
        // A compressor that has not begun takes any dictionary.
        let _ = zlib.set_dictionary(&DICTIONARY);
        Self(zlib)
    }

    /// Compresses a list.
    pub(super) fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, FrameError> {
        let mut plain = Vec::new();
        let number = |length: usize, plain: &mut Vec<u8>| {
            plain.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_be_bytes());
        };
        number(headers.len(), &mut plain);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            number(text.len(), &mut plain);
            plain.extend_from_slice(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let used = usize::try_from(self.0.total_in() - start).unwrap_or(plain.len());
            let rest = plain.get(used..).unwrap_or_default();
            self.0
                .compress_vec(rest, &mut block, FlushCompress::Sync)
                .map_err(|_| FrameError::Compression)?;
            // Room that is left means that nothing more was to be written.
            if block.len() < block.capacity() {
                return Ok(block);
            }
            block.reserve(1024);
        }
    }
}

fn parse(plain: &[u8]) -> Result<Headers, FrameError> {
    let mut rest = plain;
    let count = number(&mut rest)?;
    if count > MOST_HEADERS {
        return Err(FrameError::TooLarge);
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let name = text(&mut rest)?.to_ascii_lowercase();
        // Several values are separated by zero bytes; no header of ours has more than one.
        let value = text(&mut rest)?;
        headers.push((name, value.split('\0').next().unwrap_or_default().to_owned()));
    }
    Ok(headers)
}

fn number(rest: &mut &[u8]) -> Result<usize, FrameError> {
    let (number, after) = rest.split_first_chunk::<4>().ok_or(FrameError::Headers)?;
    *rest = after;
    usize::try_from(u32::from_be_bytes(*number)).map_err(|_| FrameError::Headers)
}

fn text(rest: &mut &[u8]) -> Result<String, FrameError> {
    let length = number(rest)?;
    let (text, after) = rest.split_at_checked(length).ok_or(FrameError::Headers)?;
    *rest = after;
    String::from_utf8(text.to_vec()).map_err(|_| FrameError::Headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lists_are_read_as_they_were_written(lists in prop::collection::vec(
            prop::collection::vec(("[a-z]{1,20}", "[ -~]{0,300}"), 0..8), 1..4,
        )) {
            let (mut deflate, mut inflate) = (Deflate::new(), Inflate::new());
            for list in lists {
                let borrowed: Vec<(&str, &str)> =
                    list.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let block = deflate.write(&borrowed).unwrap();
                prop_assert_eq!(inflate.read(&block).unwrap(), list);
            }
        }

        #[test]
        fn no_block_panics(block: Vec<u8>, plain: Vec<u8>) {
            let _ = Inflate::new().read(&block);
            let _ = parse(&plain);
            let mut zlib = Compress::new(Compression::fast(), true);
            let mut compressed = Vec::with_capacity(plain.len() + 1024);
            zlib.compress_vec(&plain, &mut compressed, FlushCompress::Sync).unwrap();
            let _ = Inflate::new().read(&compressed);
        }
    }

    #[test]
    fn a_small_block_that_grows_large_is_refused() {
        let mut zlib = Compress::new(Compression::best(), true);
        let mut bomb = Vec::with_capacity(1 << 20);
        zlib.compress_vec(&vec![0; 4 << 20], &mut bomb, FlushCompress::Sync).unwrap();
        assert!(bomb.len() < 100_000);
        assert!(matches!(Inflate::new().read(&bomb), Err(FrameError::TooLarge)));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for plain in [&b"\0\0\0\x01\xff\xff\xff\xff"[..], b"\xff\xff\xff\xff", b"\0\0\0\x01\0\0\0\x02a", b""]
        {
            assert!(parse(plain).is_err());
        }
    }
}
