//! A custom accept loop. rustls calls no verifier for a resumed session or a live connection, so
//! the loop looks the client up before each request. Then the certificate is removed.
#![allow(clippy::disallowed_methods, reason = "the process-wide provider is this program's")]
use portcullis::{PinnedClientVerifier, TrustStore};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use std::{error::Error, io, sync::Arc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
type Trusted = tokio::sync::watch::Receiver<Arc<TrustStore>>;
/// Echoes each byte while the client's certificate is trusted.
async fn serve(socket: TcpStream, tls: TlsAcceptor, trusted: Trusted) -> io::Result<()> {
    let mut stream = tls.accept(socket).await?;
    let client = stream.get_ref().1.peer_certificates().unwrap_or_default()[0].to_vec();
    while let Ok(request) = stream.read_u8().await {
        let newest = Arc::clone(&trusted.borrow());
        if newest.identify(&client).is_err() {
            return stream.shutdown().await;
        }
        stream.write_u8(request).await?;
    }
    Ok(())
}
async fn gets_response(stream: &mut TlsStream<TcpStream>) -> bool {
    stream.write_u8(7).await.is_ok() && stream.read_u8().await.is_ok()
}
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cert = |name: &str| CertificateDer::from_pem_file(format!("certs-example/{name}.pem"));
    let key = |name: &str| PrivateKeyDer::from_pem_file(format!("certs-example/{name}-key.pem"));
    let store = TrustStore::builder().pin_der("client-1.pem", cert("client-1")?.to_vec())?;
    let (publish, trusted) = tokio::sync::watch::channel(Arc::new(store.build()));
    let verifier = PinnedClientVerifier::new(Arc::clone(&trusted.borrow()));
    let server = ServerConfig::builder().with_client_cert_verifier(Arc::new(verifier));
    let server = server.with_single_cert(vec![cert("server-cert")?], key("server")?)?;
    let tls = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut roots = RootCertStore::empty();
    roots.add(cert("root")?)?;
    let client = ClientConfig::builder().with_root_certificates(roots);
    let client = client.with_client_auth_cert(vec![cert("client-1")?], key("client-1")?)?;
    let (client, address) = (TlsConnector::from(Arc::new(client)), listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, tls.clone(), trusted.clone()));
        }
    });
    let socket = || TcpStream::connect(address);
    let connect = async || client.connect(address.ip().into(), socket().await?).await;
    let mut live = connect().await?;
    assert!(gets_response(&mut live).await);
    publish.send_replace(Arc::new(TrustStore::builder().build()));
    let mut resumed = connect().await?;
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(!gets_response(&mut resumed).await && !gets_response(&mut live).await);
    println!("both refused");
    Ok(())
}
