//! TLS: certificate authorities besides the system's, and the client certificate.
//!
//! The files are read and checked at the start, so that a wrong one is a mistake in the configuration
//! and not a connection that never comes; and again for each new connection, so that a certificate may be replaced
//! while a program runs.

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// `[tls]`: trusted authorities and the client certificate for `amqps://`, `rediss://` and `https://`. The files
/// are PEM.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate authorities that are trusted besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The client certificate, for servers that ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// A file of `[tls]` that can't be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// It can't be read.
    #[error("can't read {path}, which `tls.{key}` names: {reason}")]
    Read {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Its content is not what the key asks for.
    #[error("{path}, which `tls.{key}` names, is not {what}: {reason}; it has to be PEM")]
    Content {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The expected content.
        what: &'static str,
        /// Why its content is not that.
        reason: String,
    },
    /// Half of a client certificate.
    #[error(
        "`tls.{set}` is set and `tls.{missing}` is not: a client certificate needs both; set or remove both"
    )]
    Half {
        /// The key that is set.
        set: &'static str,
        /// The key that is missing.
        missing: &'static str,
    },
    /// There is no authority to trust.
    #[error(
        "no certificate authority is trusted: the system has none{reason}, and `tls.ca_file` is not set; set it, or \
         install the system's (Debian: ca-certificates)"
    )]
    NoAuthority {
        /// Why the system has none, after a colon; empty where that is not known.
        reason: String,
    },
    /// The TLS library does not take what was read.
    #[error("TLS can't be used with the files of [tls]: {0}; replace them")]
    Unusable(String),
    /// Two halves of different client certificates.
    #[error(
        "the key in {key} does not belong to the certificate in {cert}: {reason}; name a pair in `tls.key_file` \
         and `tls.cert_file`"
    )]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
        /// Why they are no pair.
        reason: String,
    },
}

/// The files that `[tls]` names, read and checked.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    ca_pem: Option<String>,
    identity: Option<Identity>,
}

/// A client certificate.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, and those that lead from it to its authority, in PEM.
    pub cert_pem: String,
    /// Its private key in PEM.
    pub key_pem: SecretString,
}

impl Tls {
    /// Reads and checks the files that `config` names.
    pub fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let ca_pem = config.ca_file.as_deref().map(read_authorities).transpose()?;
        let identity = match (config.cert_file.as_deref(), config.key_file.as_deref()) {
            (Some(cert), Some(key)) => Some(read_identity(cert, key)?),
            (None, None) => None,
            (Some(_), None) => return Err(TlsError::Half { set: CERT, missing: KEY }),
            (None, Some(_)) => return Err(TlsError::Half { set: KEY, missing: CERT }),
        };
        Ok(Self { ca_pem, identity })
    }

    /// Whether the files said the same when both were read.
    #[cfg(feature = "management")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let texts = |tls: &Self| {
            let pair = |it: &Identity| [it.cert_pem.clone(), it.key_pem.expose_secret().to_owned()];
            (tls.ca_pem.clone(), tls.identity.as_ref().map(pair))
        };
        texts(self) == texts(other)
    }

    /// The authorities of `tls.ca_file` in PEM.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// The authorities of `tls.ca_file` and the system's, for clients that trust either the system or a list.
    pub fn all_roots_pem(&self) -> Option<String> {
        let mut pem = self.ca_pem.clone()?;
        for root in rustls_native_certs::load_native_certs().certs {
            // The system may hold a root that no client here can parse: it is left out.
            if RootCertStore::empty().add(root.clone()).is_ok() {
                pem.push_str(&to_pem(&root));
            }
        }
        Some(pem)
    }

    /// A client's side of TLS that trusts the authorities of `tls.ca_file` and the system's. It needs those of the
    /// system only where there is no `tls.ca_file`.
    pub(crate) fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let system = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(der(self.ca_pem.as_deref().unwrap_or_default()));
        roots.add_parsable_certificates(system.certs);
        if roots.is_empty() {
            let reason =
                system.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(TlsError::NoAuthority { reason });
        }
        let unusable = |error: rustls::Error| TlsError::Unusable(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots);
        let Some(Identity { cert_pem, key_pem }) = &self.identity else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let key = PrivateKeyDer::from_pem_slice(key_pem.expose_secret().as_bytes())
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        builder.with_client_auth_cert(der(cert_pem), key).map(Arc::new).map_err(unusable)
    }

    /// The client certificate.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

const CA: &str = "ca_file";
const CERT: &str = "cert_file";
const KEY: &str = "key_file";

fn read(key: &'static str, path: &Path) -> Result<String, TlsError> {
    let failed = |e: io::Error| TlsError::Read { key, path: path.into(), reason: e.to_string() };
    fs::read_to_string(path).map_err(failed)
}

/// The certificates in `pem`, at least one.
fn certificates(
    key: &'static str,
    path: &Path,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let what = if key == CA { "a list of certificate authorities" } else { "a certificate" };
    let wrong = |reason: String| TlsError::Content { key, path: path.into(), what, reason };
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| wrong(e.to_string()))?;
    if found.is_empty() {
        return Err(wrong("there is no certificate in it".into()));
    }
    // Finds certificates that can't be parsed, before a connection needs them.
    for certificate in &found {
        RootCertStore::empty().add(certificate.clone()).map_err(|e| wrong(e.to_string()))?;
    }
    Ok(found)
}

fn read_authorities(path: &Path) -> Result<String, TlsError> {
    let pem = read(CA, path)?;
    certificates(CA, path, &pem)?;
    Ok(pem + "\n")
}

fn read_identity(cert: &Path, key: &Path) -> Result<Identity, TlsError> {
    let cert_pem = read(CERT, cert)?;
    let key_pem = SecretString::from(read(KEY, key)?);
    let chain = certificates(CERT, cert, &cert_pem)?;
    let key_der = PrivateKeyDer::from_pem_slice(key_pem.expose_secret().as_bytes());
    let key_der = key_der.map_err(|e| TlsError::Content {
        key: KEY,
        path: key.into(),
        what: "a private key without a password",
        reason: e.to_string(),
    })?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key_der, &provider).map_err(|e| TlsError::Mismatch {
        key: key.into(),
        cert: cert.into(),
        reason: e.to_string(),
    })?;
    Ok(Identity { cert_pem, key_pem })
}

/// The certificates in `pem`, which was checked when it was read.
fn der(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().collect()
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    const LINE: usize = 64;
    let text = STANDARD.encode(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(LINE.min(rest.len()));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// Why a server's certificate is not accepted, if that is what `error` is about.
pub(crate) fn distrust(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls @ rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return Some(tls.to_string());
        }
        // The source of an I/O error, and of a shared one, skips the very error that it carries.
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let shared = error.downcast_ref::<Arc<dyn Error + Send + Sync>>();
        next = match (carried, shared) {
            (Some(carried), _) => Some(carried),
            (None, Some(shared)) => Some(&**shared),
            (None, None) => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    /// A folder with a certificate, its key, the key of another, and a file of neither.
    fn folder() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let make = || generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let CertifiedKey { cert, signing_key } = make();
        let other = make();
        for (name, text) in [
            ("cert.pem", cert.pem()),
            ("key.pem", signing_key.serialize_pem()),
            ("other.pem", other.signing_key.serialize_pem()),
            ("plain.txt", "no certificate".to_owned()),
            ("cut.pem", cert.pem()[..200].to_owned()),
            ("empty.pem", to_pem(&CertificateDer::from(vec![1, 2, 3]))),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn load(folder: &TempDir, [ca, cert, key]: [&str; 3]) -> Result<Tls, TlsError> {
        let file = |name: &str| (!name.is_empty()).then(|| folder.path().join(name));
        Tls::load(&TlsConfig { ca_file: file(ca), cert_file: file(cert), key_file: file(key) })
    }

    #[test]
    fn without_files_the_system_alone_is_trusted() {
        let tls = load(&folder(), ["", "", ""]).unwrap();
        assert!(tls.ca_pem().is_none() && tls.all_roots_pem().is_none());
        assert!(tls.identity().is_none());
    }

    #[test]
    fn authorities_are_added_to_those_of_the_system() {
        let tls = load(&folder(), ["cert.pem", "cert.pem", "key.pem"]).unwrap();
        let own = tls.ca_pem().unwrap();
        let all = tls.all_roots_pem().unwrap();
        let count = |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().count();
        let system = rustls_native_certs::load_native_certs().certs.len();
        assert_eq!((count(own), count(&all)), (1, 1 + system));
        assert!(all.starts_with(own));
    }

    #[test]
    fn the_private_key_does_not_print() {
        let folder = folder();
        let tls = load(&folder, ["", "cert.pem", "key.pem"]).unwrap();
        let key = fs::read_to_string(folder.path().join("key.pem")).unwrap();
        let line = key.lines().nth(1).unwrap();
        assert!(!format!("{tls:?}").contains(line));
    }

    #[test]
    fn every_mistake_names_its_key_and_its_file() {
        let folder = folder();
        for (files, named) in [
            (["none.pem", "", ""], "none.pem, which `tls.ca_file` names: No such file"),
            (["plain.txt", "", ""], "plain.txt, which `tls.ca_file` names, is not a list"),
            (["cut.pem", "", ""], "cut.pem, which `tls.ca_file` names, is not a list"),
            (["empty.pem", "", ""], "empty.pem, which `tls.ca_file` names, is not a list"),
            (["key.pem", "", ""], "there is no certificate in it"),
            (["", "cert.pem", ""], "`tls.cert_file` is set and `tls.key_file` is not"),
            (["", "", "key.pem"], "`tls.key_file` is set and `tls.cert_file` is not"),
            (["", "plain.txt", "key.pem"], "`tls.cert_file` names, is not a certificate"),
            (["", "cert.pem", "cert.pem"], "`tls.key_file` names, is not a private key"),
            (["", "cert.pem", "other.pem"], "does not belong to the certificate"),
        ] {
            let error = load(&folder, files).unwrap_err().to_string();
            assert!(error.contains(named), "{files:?}: {error}");
        }
    }
}
