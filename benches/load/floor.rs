//! Less than which no server on rustls can cost: its half of the handshake in memory, and a
//! connection's system calls without any TLS.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use nix::time::ClockId;
use rustls::client::Resumption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::{Ticketer, cipher_suite, default_provider};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::DefaultTimeProvider;
use rustls::{
    CertificateError, ClientConnection, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, ServerConnection, SignatureScheme, crypto,
};
use std::time::Duration;
use x509_cert::der::{Decode as _, Encode as _};

use crate::meter::Meter;
use crate::run::BATCH;
use crate::{Options, certs, client};

/// Accepts one certificate, by its bytes.
#[derive(Debug)]
struct Pin {
    der: CertificateDer<'static>,
    spki: SubjectPublicKeyInfoDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Pin {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match *end_entity == self.der {
            true => Ok(ClientCertVerified::assertion()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &self.spki, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The processor time of the server's half: handshake, the request read, the response written.
pub fn in_memory(options: &Options) {
    let der = certs::der(&options.certs, "client");
    let parsed = x509_cert::Certificate::from_der(&der).unwrap();
    let spki = parsed.tbs_certificate().subject_public_key_info().to_der().unwrap();
    // The cheapest that the client can do.
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ],
        ..default_provider()
    });
    let algorithms = provider.signature_verification_algorithms;
    let pin = Pin { der, spki: spki.into(), algorithms };
    let key = certs::certified_key(&options.certs, "server");
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(DefaultTimeProvider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(Arc::new(pin))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.ticketer = Ticketer::new().unwrap();
    config.send_tls13_tickets = 1;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let server = Arc::new(config);
    let client = client::config(options, Resumption::disabled());
    for _ in 0..64 {
        shake(&server, &client);
    }
    let total: Duration = (0..options.count).map(|_| shake(&server, &client)).sum();
    let each = total.as_secs_f64() * 1e6 / options.count as f64;
    let count = options.count;
    println!("{{\"mode\":\"floor\",\"errors\":0,\"operations\":{count},\"server_us\":{each:.3}}}");
}

fn now() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("a clock").into()
}

fn shake(server: &Arc<ServerConfig>, client: &Arc<rustls::ClientConfig>) -> Duration {
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let began = now();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut spent = now() - began;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let (mut has_sent_request, mut has_responded) = (false, false);
    loop {
        if !has_sent_request && !client.is_handshaking() {
            has_sent_request = true;
            client.writer().write_all(b"request").unwrap();
        }
        up.clear();
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        if has_responded {
            return spent;
        }
        let began = now();
        let mut rest = &up[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        if server.reader().read(&mut [0; 7]).is_ok() {
            server.writer().write_all(b"response").unwrap();
            has_responded = true;
        }
        down.clear();
        while server.wants_write() {
            server.write_tls(&mut down).unwrap();
        }
        spent += now() - began;
        let mut rest = &down[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
}

/// The bytes sent and received in a connection with a full handshake and one request.
const UP: [usize; 3] = [240, 1450, 400];
const DOWN: [usize; 3] = [1000, 250, 200];

/// Accepts, reads and writes three times each, closes; prints where it listens.
pub fn serve_bare() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let mut buffer = [0; 4096];
    loop {
        let mut batch: Vec<_> = (0..BATCH).map(|_| listener.accept().unwrap().0).collect();
        for size in DOWN {
            for stream in &mut batch {
                if stream.read(&mut buffer).is_err() || stream.write(&buffer[..size]).is_err() {
                    return;
                }
            }
        }
    }
}

/// Connects, writes and reads three times each, closes.
pub fn measure_bare(options: &Options) {
    let rounds = options.count.div_ceil(BATCH);
    bare_rounds(options, 4);
    let meter = Meter::start(options.pid);
    bare_rounds(options, rounds);
    println!("{{\"mode\":\"bare\",\"errors\":0,{}}}", meter.stop(rounds * BATCH));
}

fn bare_rounds(options: &Options, rounds: usize) {
    let mut buffer = [0; 4096];
    for _ in 0..rounds {
        let connect = |_| {
            let stream = TcpStream::connect(options.to).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        };
        let mut batch: Vec<_> = (0..BATCH).map(connect).collect();
        for (up, down) in UP.into_iter().zip(DOWN) {
            for stream in &mut batch {
                stream.write_all(&buffer[..up]).unwrap();
            }
            for stream in &mut batch {
                stream.read_exact(&mut buffer[..down]).unwrap();
            }
        }
    }
}
