//! An API server that is reached as real ones are: over TLS, with an authority that the kubeconfig names.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use forebay_autoscaler::act::{LaunchError, Launcher, kubernetes::KubernetesLauncher};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use crate::{
    cluster::Server,
    contract::{model, order},
};

const DEPLOYMENT: &str = "forebay-worker-all-minilm-l6-v2";

fn certificate(host: &str) -> CertifiedKey<rcgen::KeyPair> {
    generate_simple_self_signed([host.to_owned()]).unwrap()
}

/// Takes TLS off what comes in, and passes it on. Its port.
async fn terminator(certificate: &CertifiedKey<rcgen::KeyPair>, to_port: u16) -> u16 {
    let key = PrivateKeyDer::Pkcs8(certificate.signing_key.serialize_der().into());
    let chain = vec![certificate.cert.der().clone()];
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((inward, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // One that is not trusted is hung up on.
                let Ok(mut inward) = acceptor.accept(inward).await else { return };
                let mut outward = TcpStream::connect(("127.0.0.1", to_port)).await.unwrap();
                let _ = copy_bidirectional(&mut inward, &mut outward).await;
            });
        }
    });
    port
}

/// Launches at a server with a certificate for `host` that `trusts` stands for.
async fn launched(
    host: &str,
    trusts: impl FnOnce(&CertifiedKey<rcgen::KeyPair>) -> String,
) -> (Result<(), LaunchError>, i64) {
    forebay_fabric::install_crypto();
    let server = Server::start(&[DEPLOYMENT]).await;
    let certificate = certificate(host);
    let port = terminator(&certificate, server.port).await;
    server.write_kubeconfig(&json!({
        "server": format!("https://localhost:{port}"),
        "certificate-authority-data": BASE64_STANDARD.encode(trusts(&certificate)),
    }));
    let launcher = KubernetesLauncher::new(&server.config());
    let outcome = launcher.launch(&order(&model())).await;
    let replicas = server.cluster().deployments[DEPLOYMENT].0;
    (outcome, replicas)
}

#[tokio::test]
async fn a_server_certified_by_the_kubeconfig_s_authority_is_trusted() {
    let (outcome, replicas) = launched("localhost", |certificate| certificate.cert.pem()).await;
    outcome.unwrap();
    assert_eq!(replicas, 1);
}

#[tokio::test]
async fn a_server_of_another_authority_is_sent_nothing() {
    let (outcome, replicas) = launched("localhost", |_| certificate("localhost").cert.pem()).await;
    let error = outcome.unwrap_err();
    assert!(error.reason.contains("certificate"), "{error}");
    assert_eq!(replicas, 0);
}

#[tokio::test]
async fn a_server_under_another_name_is_sent_nothing() {
    let (outcome, replicas) = launched("elsewhere", |certificate| certificate.cert.pem()).await;
    let error = outcome.unwrap_err();
    assert!(error.reason.contains("certificate"), "{error}");
    assert_eq!(replicas, 0);
}
