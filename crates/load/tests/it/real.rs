//! A broker in this process, on a port of its own.

use std::sync::Arc;

use hookbot::server::{Bind, Listener, Server, Settings, TlsFiles};
use hookbot_broker::Broker;
use hookbot_log::MemoryLog;
use hookbot_protocol::{Key, Keys};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const KEY: &str = "a key for tests alone";

/// A broker, which stops when dropped.
pub(crate) struct RealBroker {
    stop: CancellationToken,
    url: String,
    folder: TempDir,
}

impl RealBroker {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), None).await
    }

    /// With TLS, and a certificate that only `ca` of its folder makes good.
    pub(crate) async fn start_tls() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(path("ca"), authority.pem()).unwrap();
        std::fs::write(path("tls-cert"), certificate.pem()).unwrap();
        std::fs::write(path("tls-key"), key.serialize_pem()).unwrap();
        let files = TlsFiles {
            certificate: path("tls-cert"),
            key: path("tls-key"),
            client_ca: None,
        };
        Self::start_in(folder, Some(files)).await
    }

    async fn start_in(folder: TempDir, tls: Option<TlsFiles>) -> Self {
        std::fs::write(folder.path().join("key"), format!("{KEY}\n")).unwrap();
        let (broker, fan_out) = Broker::new(Arc::new(MemoryLog::new(64 << 20)));
        tokio::spawn(fan_out.run());
        let mut settings = Settings::new(Keys::new(Key::new(KEY.as_bytes()).unwrap()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        settings.tls = tls;
        let server = Server::new(broker, settings).unwrap();
        let listeners = Listener::bind(&"127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let Bind::Tcp { port, .. } = listeners[0].address().unwrap() else {
            unreachable!("it was bound to an address");
        };
        let stop = CancellationToken::new();
        tokio::spawn(server.run(listeners, stop.clone()));
        Self {
            stop,
            url: format!("{scheme}://localhost:{port}"),
            folder,
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The certificate of the authority behind it.
    pub(crate) fn authority(&self) -> String {
        self.folder.path().join("ca").display().to_string()
    }

    /// The arguments that lead here.
    pub(crate) fn arguments(&self) -> String {
        let key = self.folder.path().join("key");
        let (url, key, own) = (&self.url, key.display(), std::process::id());
        format!("--url {url} --key-file {key} --pid {own}")
    }
}

impl Drop for RealBroker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
