//! Messages of `channel.k8s.io`: a byte that says which channel, and what is said on it. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio_tungstenite::tungstenite::Message;

/// The program's input.
pub(super) const STDIN: u8 = 0;
/// Its output.
pub(super) const STDOUT: u8 = 1;
/// Its errors.
pub(super) const STDERR: u8 = 2;
/// How it ended.
pub(super) const ERROR: u8 = 3;
/// The size of its terminal.
pub(super) const RESIZE: u8 = 4;
/// From version 5 on: the end of another channel.
const CLOSE: u8 = 255;

/// One of the protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    /// Whether messages are text: a digit, and base64.
    pub(super) base64: bool,
    /// 1, 4 or 5.
    pub(super) version: u8,
}

impl Protocol {
    /// By the name clients ask for; the empty one is what is spoken when none is asked for.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (base64, version) = match name {
            "" | "channel.k8s.io" => (false, 1),
            "base64.channel.k8s.io" => (true, 1),
            "v4.channel.k8s.io" => (false, 4),
            "v4.base64.channel.k8s.io" => (true, 4),
            "v5.channel.k8s.io" => (false, 5),
            _ => return None,
        };
        Some(Self { base64, version })
    }

    /// A message.
    pub(super) fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        if self.base64 {
            let mut text = String::with_capacity(1 + bytes.len().div_ceil(3) * 4);
            text.push(char::from(b'0'.saturating_add(channel)));
            STANDARD.encode_string(bytes, &mut text);
            return Message::text(text);
        }
        let mut message = Vec::with_capacity(1 + bytes.len());
        message.push(channel);
        message.extend_from_slice(bytes);
        Message::binary(message)
    }

    /// What a message says; None if it says nothing, as the protocol's own ones do.
    pub(super) fn decode(self, message: Message) -> Result<Option<Said>, Nonsense> {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            _ => return Ok(None),
        };
        let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
        if self.base64 {
            let channel = first.checked_sub(b'0').filter(|channel| *channel < 10).ok_or(Nonsense)?;
            let bytes = STANDARD.decode(rest).map_err(|_| Nonsense)?;
            return Ok(Some(Said::Bytes(channel, bytes.into())));
        }
        match (*first, rest) {
            (CLOSE, [channel]) if self.version >= 5 => Ok(Some(Said::End(*channel))),
            (CLOSE, _) if self.version >= 5 => Err(Nonsense),
            (channel, _) => Ok(Some(Said::Bytes(channel, bytes.slice(1..)))),
        }
    }
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Something on a channel.
    Bytes(u8, Bytes),
    /// Nothing more on a channel.
    End(u8),
}

/// A message that is none of the protocol's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message is not in the form of the channel protocol")]
pub(super) struct Nonsense;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const ALL: [&str; 5] = [
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "v5.channel.k8s.io",
    ];

    fn protocol(name: &str) -> Protocol {
        Protocol::named(name).unwrap()
    }

    #[rstest]
    #[case::nothing("v5.channel.k8s.io", Message::binary(vec![]), Ok(None))]
    #[case::empty("v4.channel.k8s.io", Message::binary(vec![0]), Ok(Some(Said::Bytes(0, Bytes::new()))))]
    #[case::end("v5.channel.k8s.io", Message::binary(vec![255, 0]), Ok(Some(Said::End(0))))]
    #[case::end_is_new("v4.channel.k8s.io", Message::binary(vec![255, 0]),
        Ok(Some(Said::Bytes(255, Bytes::from_static(&[0])))))]
    #[case::end_of_nothing("v5.channel.k8s.io", Message::binary(vec![255]), Err(Nonsense))]
    #[case::text(
        "base64.channel.k8s.io",
        Message::text("0aGk="),
        Ok(Some(Said::Bytes(0, Bytes::from_static(b"hi"))))
    )]
    #[case::no_digit("base64.channel.k8s.io", Message::text("xaGk="), Err(Nonsense))]
    #[case::no_base64("base64.channel.k8s.io", Message::text("0a"), Err(Nonsense))]
    #[case::ping("v5.channel.k8s.io", Message::Ping(Bytes::new()), Ok(None))]
    fn messages_are_understood(
        #[case] name: &str,
        #[case] message: Message,
        #[case] expected: Result<Option<Said>, Nonsense>,
    ) {
        assert_eq!(protocol(name).decode(message), expected);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(channel in 0u8..5, bytes: Vec<u8>) {
            for name in ALL {
                let said = protocol(name).decode(protocol(name).encode(channel, &bytes));
                prop_assert_eq!(said, Ok(Some(Said::Bytes(channel, Bytes::from(bytes.clone())))));
            }
        }

        #[test]
        fn no_message_panics(bytes: Vec<u8>, text: String) {
            for name in ALL {
                let _ = protocol(name).decode(Message::binary(bytes.clone()));
                let _ = protocol(name).decode(Message::text(text.clone()));
            }
        }
    }
}
