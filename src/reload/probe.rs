//! A handshake in memory with a TLS configuration before it is published: a client without a
//! certificate must be rejected.
//!
//! The probe uses the very configuration that clients will meet, so that no mistake, here or in the
//! TLS library, makes the server accept anonymous clients.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SignatureScheme,
};

/// A full handshake takes two flights of each side; more means that it does not end.
const MAX_FLIGHTS: usize = 8;

/// Why a configuration must not be served.
#[derive(Debug)]
pub(super) enum ProbeError {
    /// A client without a certificate was accepted.
    Open,
    /// The handshake fails before the server requests a certificate.
    Broken(Error),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => write!(f, "a handshake without a client certificate was not rejected"),
            Self::Broken(error) => write!(f, "a handshake in memory failed: {error}"),
        }
    }
}

/// Tries a handshake without a certificate, in TLS 1.3 and in TLS 1.2.
pub(super) fn probe_rejects_anonymous_client(
    server: &Arc<ServerConfig>,
    provider: &Arc<CryptoProvider>,
) -> Result<(), ProbeError> {
    for version in [&TLS13, &TLS12] {
        let mut client = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[version])
            .map_err(ProbeError::Broken)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(Arc::clone(provider))))
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
        let client = ClientConnection::new(Arc::new(client), name).map_err(ProbeError::Broken)?;
        let server = ServerConnection::new(Arc::clone(server)).map_err(ProbeError::Broken)?;
        match handshake(client, server) {
            Ok(()) => return Err(ProbeError::Open),
            Err(Error::NoCertificatesPresented) => {}
            Err(error) => return Err(ProbeError::Broken(error)),
        }
    }
    Ok(())
}

/// Runs a handshake up to the server's decision.
fn handshake(mut client: ClientConnection, mut server: ServerConnection) -> Result<(), Error> {
    let mut flight = Vec::new();
    for _ in 0..MAX_FLIGHTS {
        if !server.is_handshaking() {
            return Ok(());
        }
        move_flight(&mut flight, |out| client.write_tls(out))?;
        let mut bytes = flight.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).map_err(unexpected)?;
            server.process_new_packets()?;
        }
        move_flight(&mut flight, |out| server.write_tls(out))?;
        let mut bytes = flight.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).map_err(unexpected)?;
            client.process_new_packets()?;
        }
    }
    Err(Error::HandshakeNotComplete)
}

fn move_flight(
    flight: &mut Vec<u8>,
    mut write: impl FnMut(&mut dyn Write) -> io::Result<usize>,
) -> Result<(), Error> {
    flight.clear();
    while write(flight).map_err(unexpected)? > 0 {}
    Ok(())
}

fn unexpected(error: io::Error) -> Error {
    Error::General(error.to_string())
}

/// Accepts every server certificate: the probe is about the client's.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};

    use super::*;
    use crate::clock::SystemClock;
    use crate::reload::generation::{GenerationBuilder, Time};
    use crate::trust::{
        Certificate, LoadedCertificate, PinnedClientVerifier, Role, TrustStore, pem,
    };

    const CLIENT: &str = include_str!("../../certs-example/client-1.pem");
    const CERT: &str = include_str!("../../certs-example/server-cert.pem");
    const KEY: &str = include_str!("../../certs-example/server-key.pem");

    fn certified_key(provider: &CryptoProvider) -> Arc<CertifiedKey> {
        let chain = pem::chain(CERT.as_bytes()).unwrap();
        let key: PrivateKeyDer<'static> = pem::private_key(KEY.as_bytes()).unwrap();
        let key = provider.key_provider.load_private_key(key).unwrap();
        Arc::new(CertifiedKey::new(chain.into_iter().map(|(_, der)| der).collect(), key))
    }

    fn builder() -> GenerationBuilder {
        GenerationBuilder { provider: Arc::new(default_provider()), clock: Arc::new(SystemClock) }
    }

    #[test]
    fn configuration_that_requires_a_certificate_passes() {
        let GenerationBuilder { provider, clock } = builder();
        let (_, der) = pem::certificates(CLIENT.as_bytes()).0.remove(0);
        let certificate = Arc::new(Certificate::parse(der).unwrap());
        let loaded = LoadedCertificate {
            role: Role::Pin,
            certificate,
            file: Arc::from(std::path::Path::new("a")),
        };
        let algorithms = provider.signature_verification_algorithms;
        let store = Arc::new(TrustStore::new(None, [loaded], algorithms));
        let config =
            ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(Time(clock)))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_client_cert_verifier(Arc::new(PinnedClientVerifier::new(store)))
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key(&provider))));
        assert!(probe_rejects_anonymous_client(&Arc::new(config), &provider).is_ok());
    }

    #[test]
    fn configuration_without_client_authentication_is_found() {
        let GenerationBuilder { provider, clock } = builder();
        let config =
            ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(Time(clock)))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key(&provider))));
        let verdict = probe_rejects_anonymous_client(&Arc::new(config), &provider);
        assert!(matches!(verdict, Err(ProbeError::Open)), "{verdict:?}");
    }
}
