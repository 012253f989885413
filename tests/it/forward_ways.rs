//! The ways to a target: sockets, TLS, proxies.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use crate::forward_stage::{Act, Service, Stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_may_be_a_unix_socket() {
    let stage = Stage::new().await;
    let service = Service::new(|_| Act::Answer(200));
    let path = stage.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = service.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serving.clone().serve(stream));
        }
    });
    let url = format!("unix:{}:/hook?x", path.display());
    let _running = stage.forward("/sub/a/", &[&url]).await;
    stage.publish("a/b", "1").await;
    let seen = service.wait_for(1).await;
    assert_eq!(seen[0].line, "POST /hook?x HTTP/1.1");
    assert_eq!(
        (seen[0].header("host"), seen[0].text()),
        (Some("localhost"), "1")
    );
}

/// Certificates of one authority: its own, and those of two parties with their keys.
struct Certificates {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// What accepts only who shows a certificate.
    fn acceptor(&self) -> TlsAcceptor {
        let (certificate, key) = self.issue();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            );
        Arc::new(config.unwrap()).into()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_with_a_ca_of_ones_own_gets_a_client_certificate() {
    let stage = Stage::new().await;
    let certificates = Certificates::new();
    let service = Service::new(|_| Act::Answer(200));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}/hook",
        listener.local_addr().unwrap().port()
    );
    let (serving, acceptor) = (service.clone(), certificates.acceptor());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(serving.clone().serve(stream));
            }
        }
    });
    let (certificate, key) = certificates.issue();
    let [ca, cert, cert_key] = [
        ("ca.pem", certificates.issuer.pem()),
        ("cert.pem", certificate),
        ("key.pem", key),
    ]
    .map(|(name, text)| {
        std::fs::write(stage.path(name), text).unwrap();
        stage.path(name).display().to_string()
    });

    // Whoever trusts nobody, or shows nothing, gets nowhere; the message stays on its way.
    for (arguments, reason) in [
        (vec![], "no secure connection to localhost"),
        (vec!["--insecure"], "connection"),
    ] {
        let arguments = [
            &arguments[..],
            &["--count", "1", "--within", "2s", "--after", "start"],
            &[&url],
        ];
        let running = stage.forward("/sub/a/", &arguments.concat()).await;
        stage.publish("a/b", "1").await;
        let (code, out, _) = running.ended().await;
        assert_eq!(code, Some(5));
        assert!(out.contains(reason), "{out}");
    }
    assert!(service.seen().is_empty());
    let identity = ["--cert", &cert, "--cert-key", &cert_key];
    for trust in [vec!["--ca", &*ca], vec!["--insecure"]] {
        let before = service.seen().len();
        let running = stage
            .forward("/sub/a/", &[&trust[..], &identity, &[&url]].concat())
            .await;
        stage.publish("a/b", "2").await;
        service.wait_for(before + 1).await;
        running.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_of_the_environment_is_asked_for_the_whole_url() {
    let stage = Stage::new().await;
    let (proxy, url) = Service::start(|_| Act::Answer(200)).await;
    let proxy_url = url.replace("http://", "http://user:pass@");
    let source = stage.url("/sub/a/");
    let mut command = stage.command(&["forward", &source, "http://target.invalid/hook?x"]);
    command
        .env("HTTP_PROXY", proxy_url)
        .env("NO_PROXY", "127.0.0.1");
    let _running = stage.start(command).await;
    stage.publish("a/b", "1").await;
    let seen = proxy.wait_for(1).await;
    assert_eq!(seen[0].line, "POST http://target.invalid/hook?x HTTP/1.1");
    assert_eq!(seen[0].header("host"), Some("target.invalid"));
    assert_eq!(
        seen[0].header("proxy-authorization"),
        Some("Basic dXNlcjpwYXNz")
    );
}
