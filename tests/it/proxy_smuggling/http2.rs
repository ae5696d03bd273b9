//! By HTTP/2, whose framing an application behind HTTP/1.1 never sees.

use super::site;
use crate::support::h2::H2;
use crate::support::proxy::Front;

const H2: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")];

/// One request by HTTP/2, with one field of the plain one replaced and others added.
async fn ask(front: &Front, fields: &[(&str, &str)]) -> Option<u16> {
    let mut list: Vec<_> = H2
        .iter()
        .map(|(name, value)| {
            let other = fields.iter().find(|(other, _)| other == name);
            other.copied().unwrap_or((*name, *value))
        })
        .filter(|(_, value)| *value != "-")
        .collect();
    list.extend(fields.iter().filter(|(name, _)| !name.starts_with(':')));
    let mut client = H2::connect(front.address).await;
    client.headers(1, &list, true).await;
    client.status(1).await
}

#[tokio::test]
async fn http2_header_values_inject_nothing_into_http1() {
    let (app, front) = site().await;
    for (what, fields) in [
        ("a line end in the path", vec![(":path", "/ HTTP/1.1\r\nX-Injected: 1\r\n\r\n")]),
        ("a line feed in the path", vec![(":path", "/\nX-Injected: 1")]),
        ("a space in the path", vec![(":path", "/ HTTP/1.1")]),
        ("a tab in the path", vec![(":path", "/\tb")]),
        ("a path that is none", vec![(":path", "b")]),
        ("an absolute path", vec![(":path", "http://b/")]),
        ("an authority as path", vec![(":path", "@b/")]),
        ("an empty path", vec![(":path", "")]),
        ("a letter beyond ASCII", vec![(":path", "/\u{e9}")]),
        ("an asterisk", vec![(":path", "*")]),
        ("a method with a space", vec![(":method", "GET / HTTP/1.1")]),
        ("a method with a line end", vec![(":method", "GET\r\n")]),
        ("a line end in the authority", vec![(":authority", "a\r\nX-Injected: 1")]),
        ("userinfo in the authority", vec![(":authority", "u@a")]),
        ("a path in the authority", vec![(":authority", "a/b")]),
        ("another host", vec![("host", "b")]),
        ("two hosts", vec![("host", "a"), ("host", "a")]),
        ("neither authority nor host", vec![(":authority", "-")]),
        ("a line end in a value", vec![("x-a", "b\r\nX-Injected: 1")]),
        ("a line feed in a value", vec![("x-a", "b\nX-Injected: 1")]),
        ("a NUL in a value", vec![("x-a", "b\0")]),
        ("a line end in a name", vec![("x-a: b\r\nx-injected", "1")]),
        ("a colon in a name", vec![("x-a:b", "1")]),
        ("a space in a name", vec![("x-a b", "1")]),
        ("capitals in a name", vec![("X-A", "1")]),
        ("transfer-encoding", vec![("transfer-encoding", "chunked")]),
        ("connection", vec![("connection", "x-a")]),
        ("upgrade", vec![("upgrade", "websocket")]),
        ("te", vec![("te", "gzip")]),
        ("a length that is none", vec![("content-length", "+1")]),
        ("a length of no body", vec![("content-length", "5")]),
        ("differing lengths", vec![("content-length", "0"), ("content-length", "1")]),
    ] {
        let status = ask(&front, &fields).await;
        assert!(matches!(status, None | Some(400)), "{what}: {status:?}");
        assert!(app.record().requests.is_empty(), "{what}: {:?}", app.record());
    }
    assert_eq!(
        ask(&front, &[(":method", "CONNECT"), (":path", "-"), (":scheme", "-")]).await,
        Some(405)
    );
    assert_eq!(ask(&front, &[(":method", "TRACE")]).await, Some(405));
    assert!(app.record().requests.is_empty());

    assert_eq!(ask(&front, &[("x-a", "b"), (":path", "/c?d")]).await, Some(200));
    let record = app.record();
    let seen = record.whole()[0];
    assert_eq!(
        (seen.line(), seen.all("host"), seen.all("x-a")),
        ("GET /c?d HTTP/1.1", vec!["a"], vec!["b"])
    );
}

#[tokio::test]
async fn http2_body_longer_or_shorter_than_declared_is_rejected() {
    for (what, length, data) in [("longer", "3", "hello"), ("shorter", "7", "hello")] {
        let (app, front) = site().await;
        let mut client = H2::connect(front.address).await;
        let mut list = H2.to_vec();
        list[0].1 = "POST";
        list.push(("content-length", length));
        client.headers(1, &list, false).await;
        client.data(1, data.as_bytes(), true).await;
        let status = client.status(1).await;
        assert!(matches!(status, None | Some(400)), "{what}: {status:?}");
        let record = app.until(what, |record| record.open == 0).await;
        assert!(record.whole().is_empty(), "{what}: {record:?}");
    }
    let (app, front) = site().await;
    let mut client = H2::connect(front.address).await;
    let mut list = H2.to_vec();
    list[0].1 = "POST";
    list.push(("content-length", "5"));
    client.headers(1, &list, false).await;
    client.data(1, b"hello", true).await;
    assert_eq!(client.status(1).await, Some(200));
    assert_eq!(app.record().whole()[0].body, b"hello");
}
