//! TLS on the client port.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::settings::Tls;

/// What we offer to speak, best first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM of the right kind.
    #[error("{setting} = {path:?}: {why}")]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate and the key do not go together, or are not understood.
    #[error("server.tls: cert = {cert:?} and key = {key:?} cannot be used together: {why}")]
    Pair {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong with them.
        why: rustls::Error,
    },
}

/// Reads certificate and key: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
///
/// # Errors
/// When a file cannot be used.
pub fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |setting, path: &PathBuf, why: String| TlsError::File { setting, path: path.clone(), why };
    let certs: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect)
        .map_err(|error| wrong("server.tls.cert", &tls.cert, error.to_string()))?;
    if certs.is_empty() {
        return Err(wrong("server.tls.cert", &tls.cert, "has no certificate; expected PEM, leaf first".to_owned()));
    }
    let key =
        PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| wrong("server.tls.key", &tls.key, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certs, key))
        .map_err(|why| TlsError::Pair { cert: tls.cert.clone(), key: tls.key.clone(), why })?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}
