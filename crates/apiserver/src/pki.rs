//! The cluster's own certificate authority and the certificates it signs.
//!
//! Everything is made once and kept in `DIR/pki`, keys readable by the owner only. The serving certificate is
//! made anew when the names it must cover change; any certificate is when it nears its end.

mod files;

use files::{read, write_private, write_public};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long the authority is valid (as kubeadm's).
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long other certificates are.
const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// A certificate that ends sooner than this is made anew.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What can go wrong with certificates.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{step} {path}: {source}")]
    File {
        /// `reading`, `writing`, `creating`.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or key could not be made or read.
    #[error("{step} certificate {name}: {source}")]
    Certificate {
        /// `making`, `reading`.
        step: &'static str,
        /// Which.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TLS does not accept the certificates.
    #[error("setting up TLS: {source}")]
    Tls {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    step: &'static str,
    name: &str,
) -> impl FnOnce(E) -> PkiError {
    let name = name.to_owned();
    move |error| PkiError::Certificate { step, name, source: error.into() }
}

/// The certificates of a cluster.
#[derive(Clone, Debug)]
pub struct Pki {
    dir: PathBuf,
    /// The authority's certificate, PEM.
    pub ca_pem: String,
    /// The admin's certificate, PEM.
    pub admin_pem: String,
    /// The admin's key, PEM.
    pub admin_key_pem: String,
    /// The bearer token of the admin.
    pub admin_token: String,
    serving_pem: String,
    serving_key_pem: String,
    token_key_pem: String,
}

/// A certificate with its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

/// The names the API server always answers to, besides those of the node.
pub fn default_names(hostname: &str) -> Vec<String> {
    let fixed = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let hostname = (!hostname.is_empty()).then(|| hostname.to_lowercase());
    fixed.into_iter().map(str::to_owned).chain(hostname).collect()
}

impl Pki {
    /// Opens `DIR/pki`, making what is missing. `names` and `addresses` are what the serving certificate must
    /// cover, besides the loopback addresses and [`default_names`]. Idempotent.
    pub fn open(data_dir: &Path, names: &[String], addresses: &[IpAddr]) -> Result<Self, PkiError> {
        let dir = data_dir.join("pki");
        files::create_dir(&dir)?;
        let now = SystemTime::now();
        let ca = load_or_make_ca(&dir, now)?;
        let wanted: BTreeSet<String> = names
            .iter()
            .cloned()
            .chain(default_names(""))
            .chain(addresses.iter().map(IpAddr::to_string))
            .chain(["127.0.0.1".into(), "::1".into()])
            .collect();
        let serving = leaf(&dir, "apiserver", &ca, now, &wanted, serving_params)?;
        let admin = leaf(&dir, "admin", &ca, now, &BTreeSet::new(), |_| Ok(admin_params()))?;
        Ok(Self {
            ca_pem: ca.certificate,
            admin_pem: admin.certificate,
            admin_key_pem: admin.key,
            admin_token: secret(&dir.join("admin.token"), || Ok(random_token()))?,
            serving_pem: serving.certificate,
            serving_key_pem: serving.key,
            token_key_pem: secret(&dir.join("sa.key"), || {
                Ok(KeyPair::generate().map_err(failed("making", "sa.key"))?.serialize_pem())
            })?,
            dir,
        })
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The key that signs service account tokens, PKCS#8 DER.
    pub fn token_key(&self) -> Result<Vec<u8>, PkiError> {
        let key = KeyPair::from_pem(&self.token_key_pem).map_err(failed("reading", "sa.key"))?;
        Ok(key.serialize_der())
    }

    /// TLS for the server: asks for a client certificate of this authority, and does without.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        fn tls<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> PkiError {
            PkiError::Tls { source: error.into() }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).map_err(tls)?).map_err(tls)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(tls)?;
        let certificate = CertificateDer::from_pem_slice(self.serving_pem.as_bytes()).map_err(tls)?;
        let key = PrivateKeyDer::from_pem_slice(self.serving_key_pem.as_bytes()).map_err(tls)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .map_err(tls)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The admin's kubeconfig for a server at this URL.
    pub fn admin_kubeconfig(&self, server: &str) -> String {
        kubeconfig(server, &self.ca_pem, &self.admin_pem, &self.admin_key_pem)
    }
}

/// A kubeconfig with one context, `sagong`, for a client certificate. The arguments are PEM.
pub fn kubeconfig(server: &str, ca: &str, cert: &str, key: &str) -> String {
    use base64::Engine;
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: sagong\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {}\nusers:\n- name: sagong\n  user:\n    client-certificate-data: {}\n    \
         client-key-data: {}\ncontexts:\n- name: sagong\n  context:\n    cluster: sagong\n    user: sagong\n\
         current-context: sagong\npreferences: {{}}\n",
        encode(ca),
        encode(cert),
        encode(key)
    )
}

fn random_token() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A secret kept in a file, made on first use.
fn secret(path: &Path, make: impl FnOnce() -> Result<String, PkiError>) -> Result<String, PkiError> {
    if let Some(kept) = read(path)?.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()) {
        return Ok(kept);
    }
    let made = make()?;
    write_private(path, &made)?;
    Ok(made)
}

fn params(
    common_name: &str,
    organization: Option<&str>,
    now: SystemTime,
    life: Duration,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    // Python 3.13 and others with strict verification refuse a leaf that does not name its issuer's key.
    params.use_authority_key_identifier_extension = true;
    // A day early, for clients whose clock is behind.
    params.not_before = (now - DAY).into();
    params.not_after = (now + life).into();
    params
}

fn load_or_make_ca(dir: &Path, now: SystemTime) -> Result<Pair, PkiError> {
    let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
    if let (Some(certificate), Some(key)) = (read(&certificate_path)?, read(&key_path)?)
        && ends_later_than(&certificate, now + RENEW_BEFORE)
    {
        return Ok(Pair { certificate, key });
    }
    let key = KeyPair::generate().map_err(failed("making", "ca"))?;
    let mut params = params("sagong-ca", None, now, CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key).map_err(failed("making", "ca"))?;
    let pair = Pair { certificate: certificate.pem(), key: key.serialize_pem() };
    write_private(&key_path, &pair.key)?;
    write_public(&certificate_path, &pair.certificate)?;
    Ok(pair)
}

/// A certificate signed by the authority: the one on disk if it is still good, or a new one.
fn leaf(
    dir: &Path,
    name: &str,
    ca: &Pair,
    now: SystemTime,
    names: &BTreeSet<String>,
    make: impl FnOnce(&BTreeSet<String>) -> Result<CertificateParams, PkiError>,
) -> Result<Pair, PkiError> {
    let (certificate_path, key_path) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    if let (Some(certificate), Some(key)) = (read(&certificate_path)?, read(&key_path)?)
        && ends_later_than(&certificate, now + RENEW_BEFORE)
        && covered_names(&certificate).is_some_and(|covered| covered == *names)
        && is_signed_by(&certificate, &ca.certificate)
    {
        return Ok(Pair { certificate, key });
    }
    let key = KeyPair::generate().map_err(failed("making", name))?;
    let issuer_key = KeyPair::from_pem(&ca.key).map_err(failed("reading", "ca"))?;
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, issuer_key).map_err(failed("reading", "ca"))?;
    let certificate = make(names)?.signed_by(&key, &issuer).map_err(failed("making", name))?;
    let pair = Pair { certificate: certificate.pem(), key: key.serialize_pem() };
    write_private(&key_path, &pair.key)?;
    write_public(&certificate_path, &pair.certificate)?;
    Ok(pair)
}

fn serving_params(names: &BTreeSet<String>) -> Result<CertificateParams, PkiError> {
    let mut params = params("kube-apiserver", None, SystemTime::now(), LEAF_LIFE);
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(failed("making", "apiserver"))?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn admin_params() -> CertificateParams {
    let mut params = params("kubernetes-admin", Some(crate::authn::MASTERS), SystemTime::now(), LEAF_LIFE);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// Looks at a certificate; None when it cannot be read.
fn inspect<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Some(look(&certificate))
}

fn ends_later_than(pem: &str, time: SystemTime) -> bool {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    inspect(pem, |certificate| certificate.validity().not_after.timestamp())
        .is_some_and(|end| u64::try_from(end).is_ok_and(|end| end > seconds))
}

fn is_signed_by(pem: &str, ca: &str) -> bool {
    let issuer = inspect(ca, |ca| ca.public_key().raw.to_vec());
    let key_of = |raw: &[u8]| {
        x509_parser::x509::SubjectPublicKeyInfo::from_der(raw)
            .ok()
            .and_then(|(_, key)| inspect(pem, |certificate| certificate.verify_signature(Some(&key)).is_ok()))
    };
    issuer.and_then(|raw| key_of(&raw)).unwrap_or(false)
}

/// The names and addresses a certificate is for.
fn covered_names(pem: &str) -> Option<BTreeSet<String>> {
    inspect(pem, |certificate| {
        let mut names = BTreeSet::new();
        for extension in certificate.extensions() {
            let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() else {
                continue;
            };
            for name in &alternative.general_names {
                match name {
                    GeneralName::DNSName(name) => names.extend([(*name).to_owned()]),
                    GeneralName::IPAddress(bytes) => names.extend(address(bytes).map(|a| a.to_string())),
                    _ => {}
                }
            }
        }
        names
    })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok()
}
