//! An application that records what reaches it, byte for byte, a server with a proxy before it, and
//! clients that send what no library would.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use portcullis::service::{Proxy, Upstream};
use portcullis::{Handle, Running};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::DEADLINE;
use super::pki::PKI;
use super::tls::{Site, connector};

pub type Tls = TlsStream<TcpStream>;

/// A request as an application reads it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
    /// Whether all of its body came.
    pub is_whole: bool,
}

impl Seen {
    /// The request line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// The values of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let named = lines.filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim()).collect()
    }

    pub fn names(&self) -> Vec<String> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.map(|(name, _)| name.to_lowercase()).collect()
    }
}

/// What an application does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Sends this.
    Send(Vec<u8>),
    /// Sends this and ends the connection.
    SendAndClose(Vec<u8>),
    /// Responds before it has read the body.
    Early(Vec<u8>),
    /// Ends the connection.
    Close,
    /// Sends nothing more.
    Hang,
}

impl Reply {
    pub fn text(text: &str) -> Self {
        Self::Send(text.as_bytes().to_vec())
    }

    pub fn ok() -> Self {
        Self::text("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    }
}

/// All that has reached an application.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Each request, by the number of its connection.
    pub requests: Vec<(usize, Seen)>,
    pub connections: usize,
    pub open: usize,
}

impl Record {
    pub fn whole(&self) -> Vec<&Seen> {
        self.requests.iter().map(|(_, seen)| seen).filter(|seen| seen.is_whole).collect()
    }
}

/// An application with a scripted response.
pub struct App {
    pub address: SocketAddr,
    record: watch::Receiver<Record>,
    task: tokio::task::JoinHandle<()>,
}

impl App {
    /// `reply` gets the request and the number of requests before it.
    pub async fn start(reply: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::at(listener, reply)
    }

    pub fn at(
        listener: TcpListener,
        reply: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, record) = watch::channel(Record::default());
        let (sender, reply) = (Arc::new(sender), Arc::new(reply));
        let task = tokio::spawn(async move {
            // Its connections end with it, as with the process that it stands for.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (sender, reply) = (Arc::clone(&sender), Arc::clone(&reply));
                connections.spawn(async move {
                    let mut number = 0;
                    sender.send_modify(|record| {
                        number = record.connections;
                        record.connections += 1;
                        record.open += 1;
                    });
                    let _open = Open(Arc::clone(&sender));
                    let _ = serve(stream, number, &sender, reply.as_ref()).await;
                });
            }
        });
        Self { address, record, task }
    }

    pub fn record(&self) -> Record {
        self.record.borrow().clone()
    }

    /// Waits until what has reached it is so.
    pub async fn until(&self, what: &str, fits: impl FnMut(&Record) -> bool) -> Record {
        let mut record = self.record.clone();
        let waited = timeout(DEADLINE, record.wait_for(fits)).await;
        match waited {
            Ok(record) => record.unwrap().clone(),
            Err(_) => panic!("never {what}: {:?}", self.record()),
        }
    }

    /// Ends it as a process that is killed.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub fn upstream(&self) -> Upstream {
        format!("http://{}", self.address).parse().unwrap()
    }
}

struct Open(Arc<watch::Sender<Record>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|record| record.open -= 1);
    }
}

async fn serve(
    stream: TcpStream,
    number: usize,
    record: &watch::Sender<Record>,
    reply: &(impl Fn(&Seen, usize) -> Reply + Sync),
) -> io::Result<()> {
    let mut stream = Reader { stream, buffer: Vec::new() };
    loop {
        let Some(head) = stream.until(b"\r\n\r\n").await? else { return Ok(()) };
        let mut seen = Seen { head, ..Seen::default() };
        let mut at = 0;
        record.send_modify(|record| {
            at = record.requests.len();
            record.requests.push((number, seen.clone()));
        });
        let early = reply(&seen, at);
        if let Reply::Early(bytes) = &early {
            stream.stream.write_all(bytes).await?;
        }
        let whole = stream.body(&mut seen).await;
        seen.is_whole = matches!(whole, Ok(true));
        record.send_modify(|record| record.requests[at].1 = seen.clone());
        if !seen.is_whole {
            return Ok(());
        }
        match early {
            Reply::Early(_) => {}
            Reply::Send(bytes) => stream.stream.write_all(&bytes).await?,
            Reply::SendAndClose(bytes) => return stream.stream.write_all(&bytes).await,
            Reply::Close => return Ok(()),
            Reply::Hang => {
                // Until the other side leaves.
                stream.until(b"never").await?;
                return Ok(());
            }
        }
    }
}

struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Reader {
    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    async fn until(&mut self, end: &[u8]) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let taken: Vec<u8> = self.buffer.drain(..at + end.len()).collect();
                return Ok(Some(String::from_utf8_lossy(&taken).into_owned()));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    async fn exactly(&mut self, count: usize, into: &mut Vec<u8>) -> io::Result<bool> {
        while self.buffer.len() < count {
            if !self.more().await? {
                into.append(&mut self.buffer);
                return Ok(false);
            }
        }
        into.extend(self.buffer.drain(..count));
        Ok(true)
    }

    /// Reads a body as strictly as can be: whatever is odd is a failure of the test.
    async fn body(&mut self, seen: &mut Seen) -> io::Result<bool> {
        let lengths = seen.all("content-length").join("|");
        let encodings = seen.all("transfer-encoding").join("|");
        match (lengths.as_str(), encodings.as_str()) {
            ("", "") => Ok(true),
            (length, "") => {
                let length = length.parse().expect("one plain number");
                self.exactly(length, &mut seen.body).await
            }
            ("", "chunked") => loop {
                let Some(size) = self.until(b"\r\n").await? else { return Ok(false) };
                let size = usize::from_str_radix(size.trim_end(), 16).expect("a plain size");
                if size > 0 {
                    let mut ending = Vec::new();
                    if !self.exactly(size, &mut seen.body).await?
                        || !self.exactly(2, &mut ending).await?
                    {
                        return Ok(false);
                    }
                    assert_eq!(ending, b"\r\n");
                    continue;
                }
                loop {
                    let Some(line) = self.until(b"\r\n").await? else { return Ok(false) };
                    if line == "\r\n" {
                        return Ok(true);
                    }
                    seen.trailers.push_str(&line);
                }
            },
            both => panic!("an ambiguous request reached the application: {both:?}"),
        }
    }
}

/// A server in this process with a proxy before an application.
pub struct Front {
    pub address: SocketAddr,
    pub handle: Handle,
    pub running: Running,
    pub site: Site,
}

impl Front {
    pub fn of(proxy: Proxy) -> Self {
        let site = Site::new();
        site.trust("a.pem", &PKI.a.cert);
        let bound = site.config().trust(site.path("trust")).bind().unwrap();
        let address = bound.local_addrs()[0];
        let running = bound.serve_hyper(proxy);
        Self { address, handle: running.handle(), running, site }
    }

    pub fn before(app: &App) -> Self {
        Self::of(Proxy::new(app.upstream()))
    }

    /// A connection that speaks HTTP/1.1.
    pub async fn connect(&self) -> Tls {
        connect(self.address, "http/1.1").await
    }

    /// One request on a connection of its own, and all that comes back until it ends.
    pub async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut tls = self.connect().await;
        send(&mut tls, bytes).await;
        read_to_end(&mut tls).await
    }

    /// The same with `Connection: close`, for a request without a body.
    pub async fn get(&self, path: &str, headers: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
        self.exchange(head).await
    }
}

pub async fn connect(address: SocketAddr, protocol: &str) -> Tls {
    connector(&PKI.a).speaking(protocol).connect(address).await.unwrap()
}

pub async fn send(tls: &mut Tls, bytes: impl AsRef<[u8]>) {
    // A server that has refused already may not take it all.
    let _ = tls.write_all(bytes.as_ref()).await;
    let _ = tls.flush().await;
}

/// All that comes until the connection ends, however it does.
pub async fn read_to_end(tls: &mut Tls) -> String {
    let mut all = Vec::new();
    let read = async { while tls.read_buf(&mut all).await.is_ok_and(|count| count > 0) {} };
    if timeout(DEADLINE, read).await.is_err() {
        panic!("the connection never ended: {}", String::from_utf8_lossy(&all));
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until this has come, and perhaps more.
pub async fn read_until(tls: &mut Tls, end: &str) -> String {
    let mut all = Vec::new();
    let read = async {
        while !all.windows(end.len()).any(|window| window == end.as_bytes()) {
            if tls.read_buf(&mut all).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
        Ok(())
    };
    let done = timeout(DEADLINE, read).await;
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(matches!(done, Ok(Ok(()))), "no {end:?}: {done:?}: {text}");
    text
}

/// Whether nothing can be read now.
pub async fn is_silent(tls: &mut Tls) -> bool {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    poll_fn(|context| Poll::Ready(Pin::new(&mut *tls).poll_read(context, &mut buffer).is_pending()))
        .await
}

pub fn status(response: &str) -> u16 {
    response.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

/// A path that nothing else uses.
pub fn socket_path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("app.sock")
}
