//! Nothing that one side parses differently from the other gets through: requests as raw bytes, over
//! TLS, before an application that records what it saw and takes nothing odd.

mod http2;

use crate::support::proxy::{App, Front, Reply, read_to_end, send, status};
use portcullis::service::Proxy;

/// What is sent, but for what is odd about it.
const PLAIN: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

async fn site() -> (App, Front) {
    let app = App::start(|_, _| Reply::ok()).await;
    let front = Front::before(&app);
    (app, front)
}

/// Each request is refused, its connection closes, and it does not reach the application. The one
/// beside it, which differs in one thing, does.
async fn assert_refused(expected: u16, cases: &[(&str, &str, &str)]) {
    for (what, bad, good) in cases {
        let (app, front) = site().await;
        let response = front.exchange(bad).await;
        assert_eq!(status(&response), expected, "{what}: {response}");
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{what}: {response}");
        assert!(app.record().requests.is_empty(), "{what}: {:?}", app.record());

        let mut tls = front.connect().await;
        send(&mut tls, good).await;
        let heard = app.until(what, |record| record.whole().len() == 1);
        heard.await;
    }
}

#[tokio::test]
async fn a_request_names_exactly_one_host() {
    assert_refused(
        400,
        &[
            ("no host", "GET / HTTP/1.1\r\n\r\n", PLAIN),
            ("an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", PLAIN),
            ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", PLAIN),
            ("two equal hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", PLAIN),
            ("userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", PLAIN),
            ("a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", PLAIN),
            ("a list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", PLAIN),
            ("a port that is none", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", PLAIN),
            (
                "another authority",
                "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "userinfo in the authority",
                "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "an absolute target and no host",
                "GET http://a/ HTTP/1.1\r\n\r\n",
                "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn request_target_is_in_origin_form() {
    assert_refused(
        400,
        &[
            ("an authority", "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", PLAIN),
            ("a name", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", PLAIN),
            (
                "an asterisk",
                "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
                "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            (
                "another scheme",
                "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("a NUL", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", PLAIN),
            ("a DEL", "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", PLAIN),
            ("a letter beyond ASCII", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", PLAIN),
            ("a space", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", PLAIN),
            ("a tab", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", PLAIN),
            ("a bare CR", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", PLAIN),
            ("another version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", PLAIN),
        ],
    )
    .await;
}

#[tokio::test]
async fn connect_and_trace_are_refused() {
    assert_refused(
        405,
        &[
            ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", PLAIN),
            ("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", PLAIN),
        ],
    )
    .await;
}

#[tokio::test]
async fn header_lines_are_not_reinterpreted() {
    assert_refused(
        400,
        &[
            (
                "a space before the colon",
                "GET / HTTP/1.1\r\nHost: a\r\nX-A : b\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\r\n",
            ),
            ("a tab before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX-A\t: b\r\n\r\n", PLAIN),
            ("a folded line", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n", PLAIN),
            ("a folded line by tab", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\tc\r\n\r\n", PLAIN),
            ("a fold at first", "GET / HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n", PLAIN),
            ("a bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n", PLAIN),
            ("a NUL", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n\r\n", PLAIN),
            ("a bell", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x07\r\n\r\n", PLAIN),
            ("a DEL", "GET / HTTP/1.1\r\nHost: a\r\nX-A: b\x7f\r\n\r\n", PLAIN),
            ("a NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX-\0A: b\r\n\r\n", PLAIN),
            ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", PLAIN),
            ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX-A\r\n\r\n", PLAIN),
            ("a bare CR as a line end", "GET / HTTP/1.1\r\nHost: a\rX-A: b\r\r\n\r\n", PLAIN),
        ],
    )
    .await;
}

/// A request whose body would hide another one.
fn framed(headers: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
    )
}

#[tokio::test]
async fn a_body_is_framed_in_one_way() {
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let length = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n0\r\n\r\n";
    for (what, headers, good) in [
        ("differing lengths", "Content-Length: 5\r\nContent-Length: 6\r\n", length),
        ("a list of lengths", "Content-Length: 5, 6\r\n", length),
        ("a list of one length", "Content-Length: 5, 5\r\n", length),
        ("a sign", "Content-Length: +5\r\n", length),
        ("a negative length", "Content-Length: -5\r\n", length),
        ("a hexadecimal length", "Content-Length: 0x5\r\n", length),
        ("a length that is none", "Content-Length: five\r\n", length),
        ("an empty length", "Content-Length:\r\n", length),
        ("a length with a space", "Content-Length: 5 5\r\n", length),
        ("a length past 64 bits", "Content-Length: 18446744073709551621\r\n", length),
        ("another coding first", "Transfer-Encoding: gzip, chunked\r\n", chunked),
        ("another coding last", "Transfer-Encoding: chunked, identity\r\n", chunked),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n", chunked),
        ("identity", "Transfer-Encoding: identity\r\n", chunked),
        ("almost chunked", "Transfer-Encoding: xchunked\r\n", chunked),
        ("quoted", "Transfer-Encoding: \"chunked\"\r\n", chunked),
        ("a parameter", "Transfer-Encoding: chunked;a=b\r\n", chunked),
        ("a vertical tab", "Transfer-Encoding: \x0bchunked\r\n", chunked),
        ("an empty one", "Transfer-Encoding:\r\n", chunked),
        ("a comma", "Transfer-Encoding: ,chunked\r\n", chunked),
        ("two of them", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunked),
        ("two of them, TE.TE", "Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n", chunked),
        ("two of them, TE.TE", "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n", chunked),
        ("a space before the colon", "Transfer-Encoding : chunked\r\n", chunked),
        ("a folded value", "Transfer-Encoding:\r\n chunked\r\n", chunked),
        ("a bare CR", "X: a\rTransfer-Encoding: chunked\r\n", chunked),
    ] {
        assert_refused(400, &[(what, &framed(headers), good)]).await;
    }
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_refused(400, &[("HTTP/1.0", old, chunked)]).await;
}

/// Served leniently within RFC 9112, if what the application sees is one plain request.
#[tokio::test]
async fn leniently_parsed_request_is_forwarded_as_one_plain_request() {
    let both = |first: &str, second: &str| framed(&format!("{first}\r\n{second}\r\n"));
    for (what, bytes, body) in [
        // The length is ignored, and what stands behind the body is never read.
        ("CL.TE", both("Content-Length: 6", "Transfer-Encoding: chunked"), ""),
        ("TE.CL", both("Transfer-Encoding: chunked", "Content-Length: 3"), ""),
        (
            "bare LF",
            "POST / HTTP/1.1\nHost: a\nContent-Length: 2\nConnection: close\n\nhi".into(),
            "hi",
        ),
    ] {
        let (app, front) = site().await;
        let response = front.exchange(bytes).await;
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{what}: {response}");
        let record = app.record();
        assert!(record.requests.len() <= 1, "{what}: {record:?}");
        for seen in record.whole() {
            assert_eq!(seen.body, body.as_bytes(), "{what}");
            let framing = seen.all("content-length").len() + seen.all("transfer-encoding").len();
            assert_eq!(framing, 1, "{what}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_second_request_behind_the_first_is_a_request_of_its_own() {
    let (app, front) = site().await;
    let second = "GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // CL.0: an unexpected body is still a body.
    let first =
        format!("GET /first HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", second.len());
    let response = front.exchange(format!("{first}{second}{second}")).await;
    assert_eq!(response.matches("HTTP/1.1 200").count(), 2, "{response}");
    let record = app.record();
    let whole = record.whole();
    assert_eq!(whole.len(), 2);
    assert_eq!((whole[0].line(), &whole[0].body[..]), ("GET /first HTTP/1.1", second.as_bytes()));
    assert_eq!(whole[1].line(), "GET /second HTTP/1.1");
    // Each went with the identity of the connection that it came by.
    assert!(whole.iter().all(|seen| seen.all("client-cert").len() == 1));
}

#[tokio::test]
async fn a_chunked_body_of_a_get_stays_a_body() {
    let (app, front) = site().await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunked = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let head =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let response = front.exchange(format!("{head}{chunked}")).await;
    assert_eq!(status(&response), 200, "{response}");
    let record = app.record();
    assert_eq!(record.requests.len(), 1);
    assert_eq!(record.whole()[0].body, hidden.as_bytes());
}

#[tokio::test]
async fn broken_request_body_is_never_a_complete_request() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for (what, rest) in [
        ("a size that is none", "xyz\r\n"),
        ("a size past 64 bits", "ffffffffffffffff1\r\n"),
        ("a negative size", "-1\r\n"),
        ("a longer chunk than declared", "2\r\nabc\r\n0\r\n\r\n"),
        ("a shorter chunk than declared", "5\r\nab\r\n0\r\n\r\n"),
        ("a bare LF after a size", "1\na\r\n0\r\n\r\nx"),
        ("a bare CR after a size", "1\rxa\r\n0\r\n\r\n"),
        ("a NUL in an extension", "1;a=\n\r\na\r\n0\r\n\r\n"),
        ("a fold in the trailers", "0\r\nX-A: b\r\n c\r\n\r\n"),
        ("a space in a trailer's name", "0\r\nX-A : b\r\n\r\n"),
    ] {
        let (app, front) = site().await;
        let mut tls = front.connect().await;
        send(&mut tls, format!("{head}{rest}")).await;
        let response = read_to_end(&mut tls).await;
        assert!([0, 400].contains(&status(&response)), "{what}: {response}");
        let record = app.until(what, |record| record.open == 0).await;
        assert!(record.whole().is_empty(), "{what}: {record:?}");
    }
    let (app, front) = site().await;
    let mut tls = front.connect().await;
    send(&mut tls, format!("{head}1;a=b\r\n!\r\n0\r\n\r\n")).await;
    let record = app.until("whole", |record| !record.whole().is_empty()).await;
    assert_eq!(record.whole()[0].body, b"hello!");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_a_finished_request() {
    for head in
        ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
    {
        let (app, front) = site().await;
        let mut tls = front.connect().await;
        send(&mut tls, format!("POST / HTTP/1.1\r\nHost: a\r\n{head}")).await;
        app.until("begun", |record| record.requests.len() == 1).await;
        drop(tls);
        let record = app.until("closed", |record| record.open == 0).await;
        assert!(record.whole().is_empty(), "{record:?}");
    }
}

#[tokio::test]
async fn malformed_response_is_not_forwarded() {
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for (what, bad) in [
        ("no HTTP", "hello\r\n\r\n"),
        (
            "differing lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        ),
        ("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok"),
        ("another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\nok"),
        ("a folded line", "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\nok"),
        ("a bare CR", "HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 2\r\n\r\nok"),
        ("another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\n\r\n"),
    ] {
        let app = App::start(move |_, _| Reply::text(bad)).await;
        let front = Front::of(Proxy::new(app.upstream()));
        let response = front.get("/", "").await;
        assert_eq!(status(&response), 502, "{what}: {response}");
        assert!(!response.contains("X-A"), "{what}: {response}");
    }
    let app = App::start(move |_, _| Reply::text(good)).await;
    assert_eq!(status(&Front::before(&app).get("/", "").await), 200);
}

#[tokio::test]
async fn bytes_after_a_response_are_not_the_next_response() {
    let split =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nX-Poison: 1\r\n\r\n";
    let app = App::start(move |_, at| if at == 0 { Reply::text(split) } else { Reply::ok() }).await;
    let front = Front::before(&app);
    for _ in 0..3 {
        let response = front.get("/", "").await;
        assert_eq!(status(&response), 200);
        assert!(!response.contains("X-Poison") && !response.contains("x-poison"), "{response}");
    }
    assert!(app.record().connections >= 2);
}
