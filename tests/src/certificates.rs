//! A certificate authority of this process's own, and what it vouches for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// The host that the servers' certificates name.
pub const HOST: &str = "127.0.0.1";

/// A host that reaches the same servers and that their certificates do not name.
pub const OTHER_HOST: &str = "127.0.0.2";

/// Signs certificates.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

static SHARED: LazyLock<Authority> = LazyLock::new(|| Authority::new("the tests' own"));

impl Authority {
    /// The one that the servers' certificates are from.
    pub fn shared() -> &'static Self {
        &SHARED
    }

    /// Another one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Writes a certificate for [`HOST`] that is good for years, and all that goes with it.
    pub fn certify(&self, folder: &Path) -> Files {
        self.write(folder, CertificateParams::new([HOST.to_owned()]).unwrap())
    }

    /// A certificate that expired years ago.
    pub fn certify_expired(&self, folder: &Path) -> Files {
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.write(folder, params)
    }

    fn write(&self, folder: &Path, mut params: CertificateParams) -> Files {
        params.distinguished_name.push(DnType::CommonName, "one of the tests");
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        fs::create_dir_all(folder).unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        Files {
            ca: write("ca.pem", &self.pem),
            cert: write("cert.pem", &cert),
            key: write("key.pem", &key.serialize_pem()),
        }
    }
}

/// A certificate on disk.
#[derive(Debug, Clone)]
pub struct Files {
    /// The authority's own certificate.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Files {
    /// The authority as text, for an environment.
    pub fn ca(&self) -> &str {
        self.ca.to_str().unwrap()
    }
}
