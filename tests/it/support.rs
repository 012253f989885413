//! A server on a port of its own, and clients that are as plain as can be.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hookbot::server::{
    Bind, ConfigFile, Configuration, Control, Listener, Routing, Server, Settings,
};
use hookbot_broker::Broker;
use hookbot_log::{Log, MemoryLog};
use hookbot_protocol::{Key, Keys, Scope};
use hookbot_routers::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::CancellationToken;

/// How long anything in a test may take. Only a failure ever waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const UNSAFE_IS_OK: (&str, &str) = (
    "X-Hookbot-Unsafe-Is-Ok",
    "I understand the security implications",
);

/// First segments that no topic may have, as the protocol lists them.
pub(crate) const RESERVED: [&str; 17] = [
    "pub",
    "sub",
    "unsafe",
    "call",
    "answer",
    "smee",
    "new",
    "ws",
    "webhook",
    "internal",
    "traefik-config",
    "ui",
    "status",
    "healthz",
    "readyz",
    "version",
    "metrics",
];

pub(crate) fn key() -> Key {
    Key::new(b"a key for tests alone").unwrap()
}

/// The token for a path.
pub(crate) fn token(path: &str) -> String {
    key().mint(&Scope::parse(path).unwrap()).expose()
}

/// A server in this process; it stops when dropped.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Broker,
    pub(crate) control: Control,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<()>,
    fan_out: AbortHandle,
    pub(crate) configuration: Option<Arc<Configuration>>,
    pub(crate) routing: Arc<Routing>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.cancel();
        // It would hold on to the log, which somebody may open again.
        self.fan_out.abort();
    }
}

/// Something done to the settings.
pub(crate) trait Change: FnOnce(&mut Settings) + Send {}
impl<F: FnOnce(&mut Settings) + Send> Change for F {}

/// What a test wants to be different from the defaults.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) settings: Option<Box<dyn Change>>,
    pub(crate) routers: Vec<Arc<dyn Router>>,
    pub(crate) log_bytes: Option<usize>,
    /// Instead of one in memory.
    pub(crate) log: Option<Arc<dyn Log>>,
    pub(crate) config: Option<PathBuf>,
    /// Done when everything is loaded, before anybody is served.
    pub(crate) between: Option<Box<dyn FnOnce() + Send>>,
}

impl Options {
    pub(crate) fn settings(change: impl FnOnce(&mut Settings) + Send + 'static) -> Self {
        Self {
            settings: Some(Box::new(change)),
            ..Self::default()
        }
    }
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let mut settings = Settings::new(Keys::new(key()));
        if let Some(change) = options.settings {
            change(&mut settings);
        }
        let in_memory = || MemoryLog::new(options.log_bytes.unwrap_or(256 << 20));
        let log = options.log.unwrap_or_else(|| Arc::new(in_memory()));
        let (broker, fan_out) = Broker::new(log);
        let fan_out = tokio::spawn(fan_out.run()).abort_handle();
        let mut server = Server::new(broker.clone(), settings).unwrap();
        for router in options.routers {
            server = server.with_router(router);
        }
        let control = server.control();
        if let Some(file) = options.config {
            let file = ConfigFile {
                file,
                ..ConfigFile::default()
            };
            server = server.with_configuration(file.load().unwrap()).unwrap();
        }
        let configuration = server.configuration();
        let routing = server.routing();
        let listeners = Listener::bind(&"127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let Bind::Tcp { host, port } = listeners[0].address().unwrap() else {
            unreachable!("it was bound to an address");
        };
        let address = format!("{}:{port}", host.unwrap()).parse().unwrap();
        if let Some(between) = options.between {
            between();
        }
        let stop = CancellationToken::new();
        let running = tokio::spawn(server.run(listeners, stop.clone()));
        Self {
            address,
            broker,
            control,
            stop,
            running,
            fan_out,
            configuration,
            routing,
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes as they are, and returns everything that comes back until the server closes.
    pub(crate) async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // A server that refuses early may close before everything is sent.
        let _ = stream.write_all(request.as_ref()).await;
        read_to_end(&mut stream).await
    }

    /// Sends one request that asks for the connection to be closed.
    pub(crate) async fn request(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut head = format!(
            "{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.address
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        Reply::parse(&self.raw([head.as_bytes(), body].concat()).await)
    }

    /// Publishes with a token that is good everywhere.
    pub(crate) async fn publish(&self, topic: &str, body: &str) -> Reply {
        let bearer = format!("Bearer {}", token("/"));
        let line = format!("POST /pub/{topic}");
        self.request(&line, &[("Authorization", &bearer)], body.as_bytes())
            .await
    }

    /// Asks until there is a place for one more connection.
    pub(crate) async fn until_there_is_a_place(&self) {
        let asking = async { while self.request("GET /status", &[], b"").await.status != 200 {} };
        timeout(PATIENCE, asking).await.expect("no place");
    }

    /// Opens a WebSocket.
    pub(crate) async fn try_subscribe(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Socket, Error> {
        let url = format!("ws://{}{path}", self.address);
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        let (stream, _) = client_async(request, self.connect().await).await?;
        Ok(Socket(stream))
    }

    /// Opens a WebSocket with a token that is good everywhere.
    pub(crate) async fn subscribe(&self, path: &str) -> Socket {
        let bearer = format!("Bearer {}", token("/"));
        let headers = [("Authorization", bearer.as_str()), UNSAFE_IS_OK];
        self.try_subscribe(path, &headers).await.unwrap()
    }
}

/// Asks until that has been too often, which where time passes is later than at once, and says how
/// often that was. With it, the answer.
pub(crate) async fn until_too_many(mut ask: impl AsyncFnMut() -> Reply) -> (usize, Reply) {
    let asking = async {
        for asked in 1.. {
            let reply = ask().await;
            if reply.status == 429 {
                return (asked, reply);
            }
        }
        unreachable!("numbers do not end")
    };
    timeout(PATIENCE, asking).await.expect("never too often")
}

pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // A reset ends a connection as well as a close.
    let _ = read.expect("the server neither answered nor closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A subscriber's end of a WebSocket.
pub(crate) struct Socket(pub(crate) WebSocketStream<TcpStream>);

impl Socket {
    /// The next message, whatever it is.
    pub(crate) async fn receive(&mut self) -> Result<Message, Error> {
        let received = timeout(PATIENCE, self.0.next())
            .await
            .expect("nothing came");
        received.unwrap_or(Err(Error::ConnectionClosed))
    }

    /// The next message's payload, as text. Pings are answered and passed over.
    pub(crate) async fn next(&mut self) -> String {
        loop {
            match self.receive().await.unwrap() {
                Message::Binary(payload) => return String::from_utf8(payload.to_vec()).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    /// The code that the server closes with.
    pub(crate) async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.receive().await.unwrap() {
                return frame.expect("a close without a code").code.into();
            }
        }
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }
}

/// A response, taken apart.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        Self {
            status: status.unwrap_or_else(|| panic!("no response: {text:?}")),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .into_iter()
            .find(|(own, _)| *own == name)
            .map(|(_, value)| value)
    }
}
