//! Requests on connections that take no steps together: bodies of any size, HTTP/2, and a fixed rate.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio_rustls::TlsConnector;

use crate::Options;
use crate::client::config;
use crate::meter::Meter;

/// How many requests warm a connection up.
const WARM_UP: usize = 8;

/// The request of all of them, and the size of its response.
pub struct Exchange {
    version: Version,
    request: Bytes,
    response: usize,
}

impl Exchange {
    /// A response of `--size` bytes.
    pub fn download(options: &Options) -> Self {
        Self { version: Version::HTTP_11, request: Bytes::new(), response: options.size }
    }

    /// A request of `--size` bytes.
    pub fn upload(options: &Options) -> Self {
        let request = vec![b'x'; options.size].into();
        Self { version: Version::HTTP_11, request, response: options.body.len() }
    }

    /// No body there, a short one back.
    pub fn short(options: &Options, version: Version) -> Self {
        Self { version, request: Bytes::new(), response: options.body.len() }
    }

    fn path(&self) -> String {
        if self.request.is_empty() { format!("/{}", self.response) } else { "/".to_owned() }
    }
}

#[derive(Clone)]
enum Sender {
    Http1(Rc<RefCell<http1::SendRequest<Full<Bytes>>>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn connect(options: &Options, version: Version) -> Self {
        let mut tls = Arc::unwrap_or_clone(config(options, Resumption::disabled()));
        let protocol: &[u8] = if version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
        tls.alpn_protocols = vec![protocol.to_vec()];
        let tcp = TcpStream::connect(options.to).await.expect("a connection");
        tcp.set_nodelay(true).expect("a socket");
        let name = "localhost".try_into().expect("a name");
        let stream =
            TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol), "the server's choice");
        let io = TokioIo::new(stream);
        if version == Version::HTTP_2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
            tokio::spawn(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            Self::Http1(Rc::new(RefCell::new(sender)))
        }
    }

    /// One request, as API Gateway makes it. True if the response is right.
    #[expect(clippy::await_holding_refcell_ref, reason = "one task has the connection")]
    async fn exchange(&mut self, exchange: &Exchange) -> bool {
        let method = if exchange.request.is_empty() { "GET" } else { "POST" };
        let path = exchange.path();
        let is_http2 = exchange.version == Version::HTTP_2;
        let uri = if is_http2 { format!("https://localhost{path}") } else { path };
        let mut request = Request::builder().method(method).uri(uri).version(exchange.version);
        if !is_http2 {
            request = request.header("host", "localhost");
        }
        let request = request
            .header("user-agent", "AmazonAPIGateway_a1b2c3d4e5")
            .header("accept", "*/*")
            .header("accept-encoding", "gzip,deflate")
            .header("x-forwarded-for", "192.0.2.7")
            .header("x-forwarded-port", "443")
            .header("x-forwarded-proto", "https")
            .header("x-amzn-trace-id", "Root=1-67891233-abcdef012345678912345678")
            .header("x-amzn-apigateway-api-id", "a1b2c3d4e5")
            .body(Full::new(exchange.request.clone()))
            .expect("a request");
        let response = match self {
            Self::Http1(sender) => {
                let mut sender = sender.borrow_mut();
                if sender.ready().await.is_err() {
                    return false;
                }
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                if sender.ready().await.is_err() {
                    return false;
                }
                sender.send_request(request).await
            }
        };
        let Ok(mut response) = response else { return false };
        let mut received = 0;
        while let Some(frame) = response.body_mut().frame().await {
            let Ok(frame) = frame else { return false };
            received += frame.data_ref().map_or(0, Bytes::len);
        }
        response.status() == StatusCode::OK && received == exchange.response
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, work)
}

/// `--batch` connections, or as many streams of one HTTP/2 connection.
async fn connect(options: &Options, version: Version) -> Vec<Sender> {
    if version == Version::HTTP_2 {
        return vec![Sender::connect(options, version).await; options.batch];
    }
    let mut senders = Vec::with_capacity(options.batch);
    for _ in 0..options.batch {
        senders.push(Sender::connect(options, version).await);
    }
    senders
}

/// `count` requests on each; how many failed.
async fn repeat(senders: &[Sender], exchange: &Rc<Exchange>, count: usize) -> usize {
    let tasks: Vec<JoinHandle<usize>> = senders
        .iter()
        .map(|sender| {
            let (mut sender, exchange) = (sender.clone(), Rc::clone(exchange));
            spawn_local(async move {
                let mut failed = 0;
                for _ in 0..count {
                    failed += usize::from(!sender.exchange(&exchange).await);
                }
                failed
            })
        })
        .collect();
    let mut failed = 0;
    for task in tasks {
        failed += task.await.expect("a task");
    }
    failed
}

/// `--count` requests, each connection one after the other.
pub fn closed_loop(mode: &str, options: &Options, exchange: Exchange) {
    run(async {
        let exchange = Rc::new(exchange);
        let senders = connect(options, exchange.version).await;
        let mut failed = repeat(&senders, &exchange, WARM_UP).await;
        let count = options.count.div_ceil(options.batch);
        let meter = Meter::start(options.pid);
        failed += repeat(&senders, &exchange, count).await;
        let cost = meter.stop(count * options.batch);
        println!("{{\"mode\":\"{mode}\",\"errors\":{failed},{cost}}}");
    });
}

/// `--rate` requests a second, whether or not the server keeps up: how long each takes from when it
/// was due, to the millisecond of the timer.
pub fn open_loop(options: &Options) {
    run(async {
        let exchange = Rc::new(Exchange::short(options, Version::HTTP_11));
        let senders = connect(options, exchange.version).await;
        let mut failed = repeat(&senders, &exchange, WARM_UP).await;
        let meter = Meter::start(options.pid);
        let (queues, workers): (Vec<_>, Vec<_>) =
            senders.iter().map(|sender| worker(sender, &exchange)).unzip();
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let (began, mut sent) = (Instant::now(), 0);
        while sent < options.count {
            ticks.tick().await;
            let due = (began.elapsed().as_secs_f64() * f64::from(options.rate)) as usize;
            for index in sent..due.min(options.count) {
                queues[index % queues.len()].send(Instant::now()).expect("a worker");
            }
            sent = due.min(options.count);
        }
        drop(queues);
        let mut times = Vec::with_capacity(options.count);
        for worker in workers {
            let (more, errors) = worker.await.expect("a task");
            times.extend(more);
            failed += errors;
        }
        let cost = meter.stop(options.count);
        times.sort_unstable();
        let at =
            |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "{{\"mode\":\"rate\",\"errors\":{failed},\"p50_ms\":{:.3},\"p99_ms\":{:.3},{cost}}}",
            at(0.5),
            at(0.99)
        );
    });
}

/// Makes the requests that are due on one connection, in their order.
fn worker(
    sender: &Sender,
    exchange: &Rc<Exchange>,
) -> (mpsc::UnboundedSender<Instant>, JoinHandle<(Vec<Duration>, usize)>) {
    let (queue, mut due) = mpsc::unbounded_channel::<Instant>();
    let (mut sender, exchange) = (sender.clone(), Rc::clone(exchange));
    let task = spawn_local(async move {
        let (mut times, mut failed) = (Vec::new(), 0);
        while let Some(at) = due.recv().await {
            failed += usize::from(!sender.exchange(&exchange).await);
            times.push(at.elapsed());
        }
        (times, failed)
    });
    (queue, task)
}
