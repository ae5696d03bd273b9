//! Listening sockets and their options.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

/// How many connections may wait to be accepted. A burst fills tokio's default of 128.
const BACKLOG: i32 = 4096;

/// The time without data from a peer before a keep-alive probe, and between two probes.
const KEEPALIVE: Duration = Duration::from_secs(60);

const DEFAULT_PORT: u16 = 8443;

/// Listens on `address`; on the unspecified address of IPv6, dual stack.
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

/// Sets what accepted sockets inherit: a small response does not wait for the acknowledgement of
/// the one before, and a peer that has vanished is detected.
fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}

/// Takes over a listening socket, with the backlog and options of our own.
pub(in crate::server) fn adopt(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    let socket = SockRef::from(&listener);
    socket.listen(BACKLOG)?;
    set_options(&socket)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Listens on the default port of all addresses of both families, or of IPv4 where the system has
/// no IPv6.
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
