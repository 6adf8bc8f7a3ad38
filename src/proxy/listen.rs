//! Binding the client port, and pingora's service on it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora_core::listeners::{L4BufferSettings, ListenerConfig};
use pingora_core::server::Fds;
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

use super::Proxy;
use super::accept::App;

/// Read and write buffer of a client connection: requests are small, and most connections idle.
const READ_BUFFER: usize = 8 * 1024;
const WRITE_BUFFER: usize = 16 * 1024;
const BACKLOG: i32 = 4_096;

/// Binds the client port.
///
/// # Errors
/// When the address is in use, or not ours to use.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Serves clients until `shutdown` says so; then it accepts no more, while calls under way go on.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(proxy: Proxy, listener: TcpListener, shutdown: watch::Receiver<bool>) -> io::Result<()> {
    let address = listener.local_addr()?.to_string();
    // Handed over as if from a process before us: pingora would retry a busy port for 30 s and then panic.
    let mut fds = Fds::new();
    fds.add(address.clone(), listener.into_raw_fd());
    let mut service = Service::new("clients".to_owned(), App::new(proxy));
    service.add_listener(ListenerConfig::tcp(address).l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER)));
    service.start_service(Some(Arc::new(Mutex::new(fds))), shutdown, 1).await;
    Ok(())
}
