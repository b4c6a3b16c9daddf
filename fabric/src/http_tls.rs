//! `[tls]` as the HTTP library takes it.

use secrecy::ExposeSecret;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::tls::Tls;

/// The trusted authorities and the client certificate of HTTP requests.
pub(crate) fn http_tls(tls: &Tls) -> Result<TlsConfig, String> {
    let roots = match tls.all_roots_pem() {
        None => RootCerts::PlatformVerifier,
        Some(pem) => RootCerts::new_with_certs(&certificates(&pem)),
    };
    let identity = tls.identity().map(|identity| {
        let key = PrivateKey::from_pem(identity.key_pem.expose_secret().as_bytes());
        let key = key.map_err(|error| error.to_string())?;
        Ok::<_, String>(ClientCert::new_with_certs(&certificates(&identity.cert_pem), key))
    });
    Ok(TlsConfig::builder().root_certs(roots).client_cert(identity.transpose()?).build())
}

/// The certificates in `pem`. All of them were parsed once when the configuration was read.
fn certificates(pem: &str) -> Vec<Certificate<'static>> {
    let items = parse_pem(pem.as_bytes()).filter_map(Result::ok);
    let certificate = |item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    };
    items.filter_map(certificate).collect()
}
