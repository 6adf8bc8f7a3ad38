//! The ports that the process listens on.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::ServerConfig;

use super::StartError;
use crate::config::Settings;
use crate::{api, proxy};

/// The bound ports of an [`App`](super::App).
#[derive(Debug)]
pub struct Ports {
    pub(super) clients: TcpListener,
    /// What clients have to speak on their port, if not plain HTTP.
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) admin: TcpListener,
}

impl Ports {
    /// Binds both ports of the settings.
    ///
    /// # Errors
    /// When one cannot be had, naming its setting.
    pub fn bind(settings: &Settings) -> Result<Self, StartError> {
        let server = &settings.server;
        api::check_bind(server.admin_listen, server.admin_token.as_ref())?;
        let bind = |setting, address| proxy::bind(address).map_err(|why| StartError::Listen { setting, address, why });
        Ok(Self {
            tls: server.tls.as_ref().map(proxy::server_config).transpose()?,
            clients: bind("server.listen", server.listen)?,
            admin: bind("server.admin_listen", server.admin_listen)?,
        })
    }

    /// Where clients reach us.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn clients(&self) -> io::Result<SocketAddr> {
        self.clients.local_addr()
    }

    /// Whether clients have to speak TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Where operators reach us.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn admin(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
}
