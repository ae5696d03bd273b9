//! Sockets that listen.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

/// What may wait to be accepted. tokio's own is 128, which a burst of handshakes fills.
const BACKLOG: i32 = 4096;

/// How long nothing has come from a peer before it is probed, and between two probes.
const PROBE: Duration = Duration::from_secs(60);

/// Where to listen if nothing is said.
const DEFAULT_PORT: u16 = 8443;

/// Listens at `address`: dual stack, where that is the unspecified address of IPv6.
pub(in crate::server) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    set_options(&socket)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepted sockets inherit these. A small answer does not wait for the acknowledgement of the one
/// before; a peer that has vanished is found out.
fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE).with_interval(PROBE))
}

/// Listens at a socket that somebody else has opened, whatever queue it came with.
pub(in crate::server) fn adopt(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    let socket = SockRef::from(&listener);
    socket.listen(BACKLOG)?;
    set_options(&socket)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Listens at the default port on all addresses of both families, or of IPv4 where there is no
/// IPv6.
pub(in crate::server) fn listen_by_default() -> io::Result<TcpListener> {
    match listen((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into()) {
        Err(error) if has_no_ipv6(&error) => listen((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into()),
        result => result,
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = if cfg!(target_os = "linux") { 97 } else { 47 };
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}
