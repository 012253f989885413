//! Where connections come in.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::transport::{Peer, Stream};

/// An address to listen on: `:8080`, `localhost:8080`, `[::1]:8080` or `unix:/run/hookbot.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// A TCP port on one host, or on every address of this machine.
    Tcp {
        /// A name or an address; `None` for every address.
        host: Option<String>,
        /// The port; 0 lets the system choose.
        port: u16,
    },
    /// A unix socket at this path.
    Unix(PathBuf),
}

impl FromStr for Bind {
    type Err = BindSyntax;

    fn from_str(text: &str) -> Result<Self, BindSyntax> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(BindSyntax),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or(BindSyntax)?;
        let port = port.parse().map_err(|_| BindSyntax)?;
        let inner = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match (inner, host) {
            (Some(ip), _) => Some(ip.parse::<Ipv6Addr>().map_err(|_| BindSyntax)?.to_string()),
            (None, "" | "*") => None,
            (None, host) if host.contains(':') => return Err(BindSyntax),
            (None, host) => Some(host.to_owned()),
        };
        Ok(Self::Tcp { host, port })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host: None, port } => write!(f, ":{port}"),
            Self::Tcp {
                host: Some(host),
                port,
            } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp {
                host: Some(host),
                port,
            } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The text is not an address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected :PORT, HOST:PORT, [IPV6]:PORT or unix:PATH")]
pub struct BindSyntax;

/// A bound address. Connections queue up in it until the server runs.
pub struct Listener(Inner);

enum Inner {
    Tcp(TcpListener),
    /// With the file to remove in the end.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds an address. A name is bound at every address of it that this machine has.
    ///
    /// # Errors
    ///
    /// When there is no such address here, or somebody has it.
    pub async fn bind(bind: &Bind) -> io::Result<Vec<Self>> {
        match bind {
            Bind::Unix(path) => Ok(vec![Self::bind_unix(path)?]),
            Bind::Tcp { host: None, port } => Ok(vec![bind_everywhere(*port)?]),
            Bind::Tcp {
                host: Some(host),
                port,
            } => bind_each(tokio::net::lookup_host((host.as_str(), *port)).await?),
        }
    }

    /// Binds a unix socket, in place of one that a dead process left behind.
    fn bind_unix(path: &PathBuf) -> io::Result<Self> {
        use std::os::unix::fs::FileTypeExt;
        let is_socket =
            std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        if is_socket
            && std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            std::fs::remove_file(path)?;
        }
        Ok(Self(Inner::Unix(UnixListener::bind(path)?, path.clone())))
    }

    /// What was bound, with the port that the system chose.
    ///
    /// # Errors
    ///
    /// When the system won't tell.
    pub fn address(&self) -> io::Result<Bind> {
        match &self.0 {
            Inner::Unix(_, path) => Ok(Bind::Unix(path.clone())),
            Inner::Tcp(listener) => {
                let address = listener.local_addr()?;
                let host = (!address.ip().is_unspecified()).then(|| address.ip().to_string());
                let port = address.port();
                Ok(Bind::Tcp { host, port })
            }
        }
    }

    /// Waits for a connection. `patience` is how long the peer's machine may leave bytes
    /// unconfirmed before the connection counts as dead.
    pub(super) async fn accept(&self, patience: Duration) -> io::Result<(Stream, Peer)> {
        match &self.0 {
            Inner::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::Local))
            }
            Inner::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                set_up(&stream, patience)?;
                Ok((Stream::Tcp(stream), Peer::Ip(address)))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Inner::Unix(_, path) = &self.0 {
            // It may be gone already; a new server would remove it, too.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Frames are written whole, so waiting for more to send would only delay them. A peer whose
/// machine is gone, or that never reads, is noticed by the kernel.
fn set_up(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_user_timeout(Some(patience))?;
    Ok(())
}

/// Binds the port for IPv6 and IPv4 alike, or for IPv4 alone where there is no IPv6.
fn bind_everywhere(port: u16) -> io::Result<Listener> {
    match bind_tcp((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            bind_tcp((Ipv4Addr::UNSPECIFIED, port).into())
        }
        bound => bound,
    }
}

/// Binds those of a name's addresses that this machine has: `localhost` may be both loopbacks where
/// there is no IPv6.
fn bind_each(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<Listener>> {
    let mut bound = Vec::new();
    let mut absent = None;
    for address in addresses {
        match bind_tcp(address) {
            Ok(listener) => bound.push(listener),
            Err(error) if is_absent(&error) => absent = Some(error),
            Err(error) => return Err(error),
        }
    }
    match absent {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

fn is_absent(error: &io::Error) -> bool {
    let no_such_family = Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == no_such_family
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(Listener(Inner::Tcp(TcpListener::from_std(socket.into())?)))
}

/// How many connections may wait to be accepted: enough for everybody to come back at once.
const BACKLOG: i32 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_was_read() {
        for text in [
            ":8080",
            "localhost:80",
            "127.0.0.1:0",
            "[::1]:8080",
            "unix:/run/h.sock",
        ] {
            assert_eq!(text.parse::<Bind>().unwrap().to_string(), text);
        }
        assert_eq!("*:80".parse(), ":80".parse::<Bind>());
        for text in [
            "",
            "8080",
            "localhost",
            ":x",
            ":65536",
            "::1:80",
            "[::1]",
            "[x]:1",
            "unix:",
        ] {
            assert_eq!(text.parse::<Bind>(), Err(BindSyntax), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_name_is_bound_where_this_machine_has_it() {
        // Reserved for documentation, so nobody has it.
        let [elsewhere, here] = [[192, 0, 2, 1], [127, 0, 0, 1]].map(|ip| (ip, 0).into());
        assert_eq!(bind_each([elsewhere, here].into_iter()).unwrap().len(), 1);
        let error = bind_each([elsewhere].into_iter()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let both = [here, taken.local_addr().unwrap()];
        let error = bind_each(both.into_iter()).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let bind = Bind::Unix(folder.path().join("s"));
        let left_behind = std::os::unix::net::UnixListener::bind(folder.path().join("s"));
        drop(left_behind);
        let bound = Listener::bind(&bind).await.unwrap();
        let error = Listener::bind(&bind).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(bound);
        assert!(!folder.path().join("s").exists());
    }
}
