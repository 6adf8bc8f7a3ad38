//! A certificate for the proxy, and clients that trust it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tidegate::proxy::settings::Tls;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::soon;

/// A certificate in files, and who trusts it.
pub(crate) struct Certificate {
    folder: TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("a file");
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
        Self { folder, der: made.cert.der().clone() }
    }

    pub(crate) fn settings(&self) -> Tls {
        Tls { cert: self.folder.path().join("cert.pem"), key: self.folder.path().join("key.pem") }
    }

    /// Connects, offering these protocols.
    pub(crate) async fn connect(&self, addr: SocketAddr, protocols: &[&str]) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = soon("the proxy accepts", TcpStream::connect(addr)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        soon("the TLS handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }
}
