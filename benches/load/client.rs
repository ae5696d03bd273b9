//! Connections that take their steps together.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore};

use crate::{Options, certs};

/// A request as API Gateway makes it.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\
User-Agent: AmazonAPIGateway_a1b2c3d4e5\r\nAccept: */*\r\nAccept-Encoding: gzip,deflate\r\n\
X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Proto: https\r\n\
X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678\r\n\
x-amzn-apigateway-api-id: a1b2c3d4e5\r\nConnection: Keep-Alive\r\n\r\n";

/// Past this a server has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client's configuration that can do one key exchange, and would rather have the longer key: the
/// server chooses the cipher suite.
pub fn config(options: &Options, resumption: Resumption) -> Arc<ClientConfig> {
    let provider = CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ],
        // The second is for the server's key: with TLS 1.2, that must be of one of these as well.
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1],
        ..default_provider()
    };
    let mut roots = RootCertStore::empty();
    roots.add(certs::der(&options.certs, "root")).unwrap();
    let client = certs::certified_key(&options.certs, "client");
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[options.tls])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(client)));
    config.resumption = resumption;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// The sessions with the one server there is.
#[derive(Debug, Default)]
pub struct Sessions {
    tls12: Mutex<Option<Tls12ClientSessionValue>>,
    tls13: Mutex<Vec<Tls13ClientSessionValue>>,
    /// Whether they are kept for later.
    is_hoarding: AtomicBool,
}

impl Sessions {
    pub fn hoard(&self, is_hoarding: bool) {
        self.is_hoarding.store(is_hoarding, Ordering::Relaxed);
    }

    pub fn tickets(&self) -> usize {
        self.tls13.lock().unwrap().len()
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, session: Tls12ClientSessionValue) {
        *self.tls12.lock().unwrap() = Some(session);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.tls12.lock().unwrap().clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        *self.tls12.lock().unwrap() = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, session: Tls13ClientSessionValue) {
        self.tls13.lock().unwrap().push(session);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        if self.is_hoarding.load(Ordering::Relaxed) {
            return None;
        }
        self.tls13.lock().unwrap().pop()
    }
}

/// What is counted of all requests.
#[derive(Default)]
pub struct LazyCounter {
    pub errors: usize,
    pub resumed: usize,
}

impl LazyCounter {
    fn fail(&mut self, what: &dyn std::fmt::Display) {
        self.errors += 1;
        if self.errors == 1 {
            eprintln!("error: {what}");
        }
    }
}

pub struct Connection {
    tls: ClientConnection,
    tcp: TcpStream,
    unsent: Vec<u8>,
    response: Vec<u8>,
    has_sent_request: bool,
}

impl Connection {
    /// Connects, without sending anything.
    fn open(options: &Options, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = "localhost".try_into().unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let tcp = TcpStream::connect(options.to)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { tls, tcp, unsent: Vec::new(), response: Vec::new(), has_sent_request: false })
    }

    /// Computes what is to be sent next: the request, once the handshake is complete.
    fn prepare(&mut self) -> io::Result<()> {
        if !self.has_sent_request && !self.tls.is_handshaking() {
            self.has_sent_request = true;
            self.tls.writer().write_all(REQUEST)?;
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.unsent)?;
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        self.tcp.write_all(&self.unsent)?;
        self.unsent.clear();
        Ok(())
    }

    /// Reads until it is this end's turn again. True if the whole response is there.
    fn receive(&mut self, body: &[u8]) -> io::Result<bool> {
        loop {
            if self.tls.read_tls(&mut self.tcp)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            if self.has_sent_request {
                let have = self.response.len();
                self.response.resize(have + state.plaintext_bytes_to_read(), 0);
                self.tls.reader().read_exact(&mut self.response[have..])?;
                if is_whole(&self.response, body)? {
                    self.response.clear();
                    return Ok(true);
                }
            } else if self.tls.wants_write() || !self.tls.is_handshaking() {
                return Ok(false);
            }
        }
    }

    fn close(mut self) {
        self.tls.send_close_notify();
        let _ = self.tls.write_tls(&mut self.tcp);
    }
}

/// True if this is the whole expected response; an error if it is another one.
fn is_whole(response: &[u8], expected: &[u8]) -> io::Result<bool> {
    let Some(end) = response.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let (head, body) = response.split_at(end + 4);
    let wrong = || io::Error::other(String::from_utf8_lossy(response));
    if !head.starts_with(b"HTTP/1.1 200 ") {
        return Err(wrong());
    }
    match body.len() {
        have if have < expected.len() => Ok(false),
        _ if body == expected => Ok(true),
        _ => Err(wrong()),
    }
}

/// Opens a connection with each of these, with one request each. Those that fail are counted and
/// left out.
pub fn open(
    options: &Options,
    configs: &[Arc<ClientConfig>],
    tally: &mut LazyCounter,
) -> Vec<Connection> {
    let opened = configs.iter().map(|config| {
        let mut connection = Connection::open(options, config)?;
        connection.prepare()?;
        Ok(connection)
    });
    // The server knows of none before all are ready to send.
    let mut under_way: Vec<_> = keep(opened.collect(), tally);
    let mut done = Vec::new();
    while !under_way.is_empty() {
        under_way = each(under_way, tally, Connection::send);
        let received = under_way.into_iter().map(|mut connection| {
            let is_done = connection.receive(&options.body)?;
            Ok((connection, is_done))
        });
        let (finished, rest): (Vec<_>, Vec<_>) =
            keep(received.collect(), tally).into_iter().partition(|(_, is_done)| *is_done);
        done.extend(finished.into_iter().map(|(connection, _)| connection));
        let rest = rest.into_iter().map(|(connection, _)| connection).collect();
        under_way = each(rest, tally, Connection::prepare);
    }
    let resumed =
        done.iter().filter(|one| one.tls.handshake_kind() == Some(HandshakeKind::Resumed));
    tally.resumed += resumed.count();
    done
}

/// One more request on each.
pub fn exchange(options: &Options, connections: &mut [Connection], tally: &mut LazyCounter) {
    for connection in &mut *connections {
        connection.has_sent_request = false;
        if let Err(error) = connection.prepare().and_then(|()| connection.send()) {
            tally.fail(&error);
        }
    }
    for connection in connections {
        if let Err(error) = connection.receive(&options.body) {
            tally.fail(&error);
        }
    }
}

pub fn close(connections: Vec<Connection>) {
    connections.into_iter().for_each(Connection::close);
}

fn each(
    connections: Vec<Connection>,
    tally: &mut LazyCounter,
    mut step: impl FnMut(&mut Connection) -> io::Result<()>,
) -> Vec<Connection> {
    let stepped = connections.into_iter().map(|mut connection| {
        step(&mut connection)?;
        Ok(connection)
    });
    keep(stepped.collect(), tally)
}

fn keep<T>(results: Vec<io::Result<T>>, tally: &mut LazyCounter) -> Vec<T> {
    let good = |result: io::Result<T>| result.map_err(|error| tally.fail(&error)).ok();
    results.into_iter().filter_map(good).collect()
}
