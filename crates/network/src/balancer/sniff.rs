//! Whether a connection speaks HTTP/1.x, told from the first bytes the client sends. Pure.

/// What the bytes so far tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// A request line of HTTP/1.0 or 1.1.
    Http,
    /// Anything else: TLS, HTTP/2 with prior knowledge, other protocols.
    Other,
    /// Could still become a request line.
    Unclear,
}

/// Longest method that is recognised.
const LONGEST_METHOD: usize = 24;
/// A request line longer than this is HTTP: the HTTP server will say what it thinks of it.
const LONGEST_LINE: usize = 16 * 1024;

/// Judges the bytes received so far. Never panics, whatever they are.
pub(crate) fn judge(bytes: &[u8]) -> Speech {
    // Empty lines before a request are allowed (RFC 9112, 2.2).
    let start = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if start > 4 {
        return Speech::Other;
    }
    let bytes = &bytes[start..];
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    if method > LONGEST_METHOD {
        return Speech::Other;
    }
    match bytes.get(method) {
        None => return Speech::Unclear,
        Some(b' ') if method > 0 => {}
        Some(_) => return Speech::Other,
    }
    let rest = &bytes[method + 1..];
    match rest.first() {
        None => return Speech::Unclear,
        // A path, or a whole URL. `*` is for OPTIONS only: with PRI it is the preface of HTTP/2.
        Some(b'/' | b'h' | b'H') => {}
        Some(b'*') if bytes.starts_with(b"OPTIONS ") => {}
        Some(_) => return Speech::Other,
    }
    match rest.iter().position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") {
                Speech::Http
            } else {
                Speech::Other
            }
        }
        None if rest.len() > LONGEST_LINE => Speech::Http,
        None => Speech::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case(b"GET / HTTP/1.1\r\n", Speech::Http)]
    #[case(b"GET / HTTP/1.0\n", Speech::Http)]
    #[case(b"\r\nPOST /x?y=z HTTP/1.1\r\nHost: a\r\n", Speech::Http)]
    #[case(b"PROPFIND /dav HTTP/1.1\r\n", Speech::Http)]
    #[case(b"M-SEARCH /x HTTP/1.1\r\n", Speech::Http)]
    #[case(b"OPTIONS * HTTP/1.1\r\n", Speech::Http)]
    #[case(b"GET http://kubia/ HTTP/1.1\r\n", Speech::Http)]
    #[case(b"", Speech::Unclear)]
    #[case(b"GE", Speech::Unclear)]
    #[case(b"GET /index.html", Speech::Unclear)]
    #[case(b"GET /\r\n", Speech::Other)]
    #[case(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Speech::Other)]
    #[case(b"CONNECT kubia:443 HTTP/1.1\r\n", Speech::Other)]
    #[case(b"GET key\r\n", Speech::Other)]
    #[case(b"\x16\x03\x01\x02\x00", Speech::Other)]
    #[case(b"SSH-2.0-OpenSSH_9.6\r\n", Speech::Other)]
    #[case(b"*1\r\n$4\r\nPING\r\n", Speech::Other)]
    #[case(b" / HTTP/1.1\r\n", Speech::Other)]
    fn speech_is_recognised_by_the_first_line(#[case] bytes: &[u8], #[case] expected: Speech) {
        assert_eq!(judge(bytes), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic_and_a_verdict_never_changes(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200
        ) {
            let early = judge(&bytes[..cut.min(bytes.len())]);
            let late = judge(&bytes);
            prop_assert!(early == Speech::Unclear || early == late);
        }

        #[test]
        fn every_request_line_is_http_and_every_beginning_of_it_unclear(
            method in "[A-Z]{1,10}", path in "/[a-z0-9/?&=%]{0,40}", cut in 0usize..60
        ) {
            let line = format!("{method} {path} HTTP/1.1\r\n");
            prop_assert_eq!(judge(line.as_bytes()), Speech::Http);
            if cut < line.len() - 1 {
                prop_assert_eq!(judge(&line.as_bytes()[..cut]), Speech::Unclear);
            }
        }
    }
}
