//! Objects as they are stored and sent.
//!
//! Stored bytes are an object's JSON without a resource version, which only the store knows. It is spliced in
//! as the first member of `metadata` whenever the object leaves; nothing else is encoded again.

use bytes::Bytes;
use sagong_store::{Entry, Revision};
use std::sync::Arc;

/// Where the members of `metadata` begin. Objects are encoded with `apiVersion`, `kind`, `metadata` first, so
/// the first match is the right one.
const METADATA: &[u8] = b"\"metadata\":{";

/// An object as stored, with its resource version.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    pub(crate) revision: Revision,
}

impl Stored {
    /// The object as it is sent.
    pub(crate) fn to_wire(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 48);
        splice(&mut out, &self.bytes, self.revision);
        out
    }
}

impl From<&Arc<Entry>> for Stored {
    fn from(entry: &Arc<Entry>) -> Self {
        Self { bytes: entry.value(), revision: entry.modified }
    }
}

/// Appends the object with its resource version. Revision 0 (an object that was not stored: a dry run of a
/// create) adds none.
pub(crate) fn splice(out: &mut Vec<u8>, object: &[u8], revision: Revision) {
    let Some(found) = memchr::memmem::find(object, METADATA).filter(|_| revision != 0) else {
        out.extend_from_slice(object);
        return;
    };
    let (head, tail) = object.split_at(found + METADATA.len());
    out.extend_from_slice(head);
    out.extend_from_slice(b"\"resourceVersion\":\"");
    out.extend_from_slice(revision.to_string().as_bytes());
    out.extend_from_slice(if tail.first() == Some(&b'}') { b"\"" } else { b"\"," });
    out.extend_from_slice(tail);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::usual(
        r#"{"kind":"Pod","metadata":{"name":"a"}}"#,
        7,
        r#"{"kind":"Pod","metadata":{"resourceVersion":"7","name":"a"}}"#
    )]
    #[case::empty_metadata(r#"{"metadata":{}}"#, 7, r#"{"metadata":{"resourceVersion":"7"}}"#)]
    #[case::only_the_outer(
        r#"{"metadata":{"name":"a"},"spec":{"template":{"metadata":{}}}}"#,
        1,
        r#"{"metadata":{"resourceVersion":"1","name":"a"},"spec":{"template":{"metadata":{}}}}"#
    )]
    #[case::never_stored(r#"{"metadata":{"name":"a"}}"#, 0, r#"{"metadata":{"name":"a"}}"#)]
    fn the_resource_version_is_spliced_into_the_metadata(
        #[case] stored: &str,
        #[case] revision: Revision,
        #[case] sent: &str,
    ) {
        let stored = Stored { bytes: Bytes::copy_from_slice(stored.as_bytes()), revision };
        assert_eq!(String::from_utf8(stored.to_wire()).unwrap(), sent);
    }
}
