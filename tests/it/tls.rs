use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hookbot::server::{Networks, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SerialNumber};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Options, Reply, TestServer, read_to_end, token};

/// An authority, and the folder in which the server finds its certificate.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Issues a certificate for localhost, as PEM, with its key.
    pub(crate) fn issue(&self, serial: u64) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Puts a pair where the server looks for it.
    pub(crate) fn install(&self, (certificate, key): (String, String)) -> TlsFiles {
        let files = TlsFiles {
            certificate: self.path("cert.pem"),
            key: self.path("key.pem"),
            client_ca: None,
        };
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn connector(&self, identity: Option<(String, String)>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
                    .unwrap()
            }
        };
        Arc::new(config).into()
    }
}

async fn start(files: TlsFiles) -> TestServer {
    TestServer::start_with(Options::settings(|settings| settings.tls = Some(files))).await
}

async fn connect(
    server: &TestServer,
    connector: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, server.connect().await).await
}

/// Asks for the status page; with it, the serial number of the server's certificate.
async fn status(server: &TestServer, connector: &TlsConnector) -> std::io::Result<(String, u8)> {
    let mut stream = connect(server, connector).await?;
    let serial = serial(stream.get_ref().1.peer_certificates().unwrap()[0].as_ref());
    let request = b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    Ok((reply, serial))
}

/// The serial number of a certificate of ours, which is one byte: the first INTEGER behind the
/// version (RFC 5280, section 4.1).
fn serial(der: &[u8]) -> u8 {
    let version = [0xa0, 0x03, 0x02, 0x01, 0x02, 0x02, 0x01];
    let at = der
        .windows(version.len())
        .position(|window| window == version)
        .unwrap();
    der[at + version.len()]
}

#[tokio::test]
async fn messages_come_over_tls() {
    let authority = Authority::new();
    let server = start(authority.install(authority.issue(1))).await;
    let connector = authority.connector(None);
    let (reply, _) = status(&server, &connector).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");

    let stream = connect(&server, &connector).await.unwrap();
    let url = format!("wss://localhost/sub/t?token={}", token("/sub/t"));
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let body = "x".repeat(5 << 20);
    for _ in 0..3 {
        let topic = hookbot_protocol::Topic::parse("t").unwrap();
        let publication = hookbot_protocol::Publication::new(topic, body.clone());
        server.broker.publish(publication).await.unwrap();
    }
    for _ in 0..3 {
        let received = futures_util::StreamExt::next(&mut socket)
            .await
            .unwrap()
            .unwrap();
        assert!(received.into_data() == body.as_bytes());
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let authority = Authority::new();
    let mut files = authority.install(authority.issue(1));
    files.client_ca = None;
    let certificate = files.certificate.clone();
    let settings_files = files.clone();
    let tls = hookbot::server::Tls::load(files).unwrap();
    drop(tls);
    let server = start(settings_files).await;
    let connector = authority.connector(None);
    assert_eq!(status(&server, &connector).await.unwrap().1, 1);

    // A certificate of another key: the old pair stays, and connections go on.
    let (other, _) = authority.issue(9);
    std::fs::write(&certificate, other).unwrap();
    let tls = TlsFiles {
        certificate,
        key: authority.path("key.pem"),
        client_ca: None,
    };
    let error = hookbot::server::Tls::load(tls).err().unwrap().to_string();
    assert!(
        error.contains("cert.pem") && error.contains("key.pem"),
        "{error}"
    );
    assert_eq!(status(&server, &connector).await.unwrap().1, 1);

    // The server looks at the files now and then.
    authority.install(authority.issue(2));
    while status(&server, &connector).await.unwrap().1 != 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn where_clients_need_a_certificate_none_gets_in_without() {
    let authority = Authority::new();
    let mut files = authority.install(authority.issue(1));
    files.client_ca = Some(authority.path("ca.pem"));
    let server = start(files).await;
    let (reply, _) = status(&server, &authority.connector(Some(authority.issue(7))))
        .await
        .unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(status(&server, &authority.connector(None)).await.is_err());
    let stranger = Authority::new();
    let forged = authority.connector(Some(stranger.issue(7)));
    assert!(status(&server, &forged).await.is_err());
}

#[tokio::test]
async fn a_handshake_that_goes_nowhere_holds_up_nobody() {
    let authority = Authority::new();
    let files = authority.install(authority.issue(1));
    let server = TestServer::start_with(Options::settings(|settings| {
        settings.tls = Some(files);
        settings.handshake_timeout = Duration::from_secs(2);
    }))
    .await;
    let mut silent = server.connect().await;
    let mut garbage = server.connect().await;
    garbage
        .write_all(b"GET /status HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let (reply, _) = status(&server, &authority.connector(None)).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert_eq!(read_to_end(&mut silent).await, "");
    assert!(!read_to_end(&mut garbage).await.contains("HTTP/1.1 200"));
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let good = authority.install(authority.issue(1));
    let load = |files: TlsFiles| hookbot::server::Tls::load(files).err().unwrap().to_string();
    let with_key = |key: &Path| {
        load(TlsFiles {
            key: key.to_owned(),
            ..good.clone()
        })
    };
    assert!(with_key(Path::new("/nowhere")).contains("/nowhere"));
    assert!(with_key(&good.certificate).contains("private key"));
    let no_certificate = TlsFiles {
        certificate: good.key.clone(),
        ..good.clone()
    };
    assert!(load(no_certificate).contains("certificate"));
}

#[tokio::test]
async fn who_comes_when_there_is_no_place_is_closed_before_the_handshake() {
    let authority = Authority::new();
    let files = authority.install(authority.issue(1));
    let server = TestServer::start_with(Options::settings(move |settings| {
        settings.tls = Some(files);
        settings.max_connections = 1;
    }))
    .await;
    let connector = authority.connector(None);
    let only = connect(&server, &connector).await.unwrap();
    // It says nothing, and has not to be waited for.
    assert_eq!(read_to_end(&mut server.connect().await).await, "");
    assert!(status(&server, &connector).await.is_err());
    drop(only);
    while status(&server, &connector).await.is_err() {}
}

#[tokio::test]
async fn a_proxy_says_for_whom_it_comes_before_the_handshake() {
    let authority = Authority::new();
    let files = authority.install(authority.issue(1));
    let server = TestServer::start_with(Options::settings(move |settings| {
        settings.tls = Some(files);
        settings.rules.proxies.networks = Networks::parse(["127.0.0.1"]).unwrap();
        settings.rules.proxies.protocol = true;
        settings.rules.refused = Networks::parse(["192.0.2.66", "2001:db8::66"]).unwrap();
    }))
    .await;
    let connector = authority.connector(None);
    let publish = async |header: Vec<u8>| {
        let mut stream = server.connect().await;
        stream.write_all(&header).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await?;
        let request = b"POST /unsafe/pub/t HTTP/1.1\r\nHost: localhost\r\n\
            Connection: close\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(request).await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        Ok::<_, std::io::Error>(Reply::parse(&reply).status)
    };
    let version_1 = |family: &str, client: &str, own: &str| {
        format!("PROXY {family} {client} {own} 4660 443\r\n").into_bytes()
    };
    let version_2 = |command, family, addresses: &[u8]| {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        let start = [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length];
        [&start.concat(), addresses].concat()
    };
    let ipv4 = |last| version_2(0x21, 0x11, &[192, 0, 2, last, 10, 0, 0, 1, 0, 1, 1, 187]);
    let ipv6 = |last| {
        let mut addresses = [0; 36];
        addresses[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        addresses[15] = last;
        version_2(0x21, 0x21, &addresses)
    };
    for (header, status) in [
        (version_1("TCP4", "192.0.2.1", "10.0.0.1"), 200),
        (version_1("TCP4", "192.0.2.66", "10.0.0.1"), 403),
        (version_1("TCP6", "2001:db8::66", "fd00::1"), 403),
        (ipv4(1), 200),
        (ipv4(66), 403),
        (ipv6(1), 200),
        (ipv6(0x66), 403),
        // The proxy asks for itself.
        (version_2(0x20, 0, b""), 200),
    ] {
        assert_eq!(publish(header.clone()).await.unwrap(), status, "{header:?}");
    }
    // Without one there is no handshake.
    assert!(publish(Vec::new()).await.is_err());
}
