//! As a service of the library, and who may ask what.

use super::*;

#[tokio::test]
async fn upstream_may_be_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = crate::support::proxy::socket_path(&dir);
    let listener = UnixListener::bind(&path).unwrap();
    let router = axum::Router::new().fallback(|headers: http::HeaderMap| async move {
        headers["client-cert"].as_bytes().to_vec()
    });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    let front = Front::of(Proxy::new(format!("unix:{}", path.display()).parse().unwrap()));
    for _ in 0..2 {
        let response = front.get("/", "").await;
        assert_eq!(status(&response), 200);
        assert!(response.contains(&client_cert()), "{response}");
    }
}

async fn served<S, B>(service: S, headers: &str) -> String
where
    S: tower_service::Service<
            Request<hyper::body::Incoming>,
            Response = Response<B>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let site = crate::support::tls::Site::new();
    site.trust("a.pem", &PKI.a.cert);
    let bound = site.config().trust(site.path("trust")).bind().unwrap();
    let address = bound.local_addrs()[0];
    let _running = bound.serve(service);
    let mut tls = connect(address, "http/1.1").await;
    send(&mut tls, format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n"))
        .await;
    read_to_end(&mut tls).await
}

fn router() -> axum::Router {
    axum::Router::new().fallback(|| async { "ok" })
}

#[tokio::test]
async fn only_listed_apis_pass() {
    let ids = ["abc", "def"];
    let header = |id| format!("x-amzn-apigateway-api-id: {id}\r\n");
    for (headers, expected) in [
        (header("abc"), 200),
        (header("def"), 200),
        (header("abcd"), 403),
        (header("ABC"), 403),
        (header("abc") + &header("def"), 403),
        (String::new(), 403),
        (header("abc").replace('-', "_"), 403),
    ] {
        let response = served(ApiId::new(ids, router()), &headers).await;
        assert_eq!(status(&response), expected, "{headers}");
        if expected == 403 {
            assert_eq!(problem(&response)["title"], "Forbidden");
        }
    }
    assert_eq!(status(&served(ApiId::new([""; 0], router()), "").await), 200);
}

#[tokio::test]
async fn authorization_closure_decides() {
    let fingerprint = sha256(&der());
    let ours = fingerprint.clone();
    let knows = move |client: &ClientIdentity, head: &http::request::Parts| {
        client.fingerprint().to_string() == ours && head.headers.contains_key("x-please")
    };
    let app = router().layer(Authorize::new(knows));
    assert_eq!(status(&served(app.clone(), "X-Please: 1\r\n").await), 200);
    assert_eq!(status(&served(app, "").await), 403);

    let knows = move |client: ClientIdentity, head: http::request::Parts| {
        let ours = fingerprint.clone();
        async move {
            tokio::task::yield_now().await;
            client.fingerprint().to_string() == ours && head.headers.contains_key("x-please")
        }
    };
    let app = router().layer(Authorize::new_async(knows));
    assert_eq!(status(&served(app.clone(), "X-Please: 1\r\n").await), 200);
    let response = served(app, "").await;
    assert_eq!(status(&response), 403);
    assert!(response.contains("application/problem+json"), "{response}");
}

#[tokio::test]
async fn request_without_an_identity_is_refused() {
    use tower::ServiceExt as _;
    let request = || Request::get("/").header("host", "a").body(axum::body::Body::empty()).unwrap();
    let app = router().layer(Authorize::new(|_, _| true));
    assert_eq!(app.oneshot(request()).await.unwrap().status(), 403);

    let app = App::start(|_, _| Reply::ok()).await;
    let mut request = request();
    request.extensions_mut().insert(PeerAddr("192.0.2.7:1".parse().unwrap()));
    let response = tower::ServiceExt::oneshot(Proxy::new(app.upstream()), request).await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(app.record().requests.is_empty());
}
