//! Digests: `sha256:…`, and `sha512:…`, which the OCI image spec has, too.

use sha2::{Digest, Sha256, Sha512};

/// Computes the digest of what it is fed, with the algorithm of the one expected.
#[derive(Clone)]
pub(crate) enum Digester {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Digester {
    /// None if the digest is malformed or of an algorithm nobody registered.
    pub(crate) fn like(digest: &str) -> Option<Self> {
        let is_hex = |hex: &str, length| {
            hex.len() == length && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        match digest.split_once(':')? {
            ("sha256", hex) if is_hex(hex, 64) => Some(Self::Sha256(Sha256::new())),
            ("sha512", hex) if is_hex(hex, 128) => Some(Self::Sha512(Sha512::new())),
            _ => None,
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// In the form `sha256:…`.
    pub(crate) fn finish(self) -> String {
        match self {
            Self::Sha256(hash) => format!("sha256:{}", hex::encode(hash.finalize())),
            Self::Sha512(hash) => format!("sha512:{}", hex::encode(hash.finalize())),
        }
    }
}

/// The digest by which we name things ourselves.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Why these bytes are not those of the digest; None if they are.
pub(crate) fn mismatch(bytes: &[u8], digest: &str) -> Option<String> {
    let Some(mut digester) = Digester::like(digest) else {
        return Some(not_a_digest(digest));
    };
    digester.update(bytes);
    let found = digester.finish();
    (found != digest).then(|| format!("{digest} has the digest {found}"))
}

/// What is wrong with a digest that [`Digester::like`] does not take.
pub(crate) fn not_a_digest(digest: &str) -> String {
    format!("{digest:?} is not a sha256 or sha512 digest")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", None)]
    #[case(
        "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd\
         454d4423643ce80e2a9ac94fa54ca49f",
        None
    )]
    #[case("sha256:0000000000000000000000000000000000000000000000000000000000000000", Some("has the digest"))]
    #[case("sha256:../../../../../../../../../../../../../../../../../../etc/shadow", Some("is not a"))]
    #[case("sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD", Some("is not a"))]
    #[case("md5:900150983cd24fb0d6963f7d28e17f72", Some("is not a"))]
    #[case("", Some("is not a"))]
    fn digests_are_checked_with_their_own_algorithm(#[case] digest: &str, #[case] why: Option<&str>) {
        let found = mismatch(b"abc", digest);
        assert_eq!(found.is_some(), why.is_some(), "{found:?}");
        assert!(found.unwrap_or_default().contains(why.unwrap_or_default()));
    }
}
