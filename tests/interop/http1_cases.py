"""HTTP/1.1 as raw bytes: each case has the statuses that the server may respond with.

    python3 http1_cases.py --port PORT --ca FILE --tls VERSION --cert FILE --key FILE

Prints {"failed": [...], "passed": N}. A status of 0 is a connection that closes without a response.
"""

import argparse
import json
import re
import socket
import ssl

HOST = "Host: localhost\r\n"


def get(headers=HOST, target="/", method="GET", version="HTTP/1.1"):
    return f"{method} {target} {version}\r\n{headers}\r\n".encode("latin-1")


def post(headers, body):
    return f"POST / HTTP/1.1\r\n{HOST}{headers}\r\n\r\n".encode("latin-1") + body


# name, bytes, the statuses of all responses in order
CASES = [
    ("plain request", get(), [200]),
    ("empty lines before the request", b"\r\n\r\n" + get(), [200]),
    ("two pipelined requests", get() + get(), [200, 200]),
    ("HTTP/1.0 without Host", get("", version="HTTP/1.0"), [200]),
    ("absolute target", get(target="http://localhost/a"), [200]),
    ("asterisk target", get(target="*", method="OPTIONS"), [200]),
    ("unknown method", get(method="BREW"), [200]),
    # Host
    ("no Host", get(""), [400]),
    ("empty Host", get("Host:\r\n"), [400]),
    ("two Host headers", get(HOST + "Host: b\r\n"), [400]),
    ("two equal Host headers", get(HOST + HOST), [400]),
    ("list in Host", get("Host: a,b\r\n"), [400]),
    ("user in Host", get("Host: u@a\r\n"), [400]),
    ("path in Host", get("Host: a/b\r\n"), [400]),
    ("port that is no number", get("Host: a:b\r\n"), [400]),
    ("target and Host differ", get(target="http://b/"), [400]),
    ("absolute target without Host", get("", target="http://a/"), [400]),
    # method and target
    ("CONNECT", get("Host: a:443\r\n", target="a:443", method="CONNECT"), [405]),
    ("TRACE", get(method="TRACE"), [405]),
    ("fragment in the target", get(target="/a#b"), [400]),
    ("fragment in an absolute target", get(target="http://localhost/#b"), [400]),
    ("number sign in a header", get(HOST + "Referer: /a#b\r\n"), [200]),
    ("space in the target", get(target="/a b"), [400]),
    ("control byte in the target", get(target="/\x01"), [400]),
    ("malformed method", get(method="G(T"), [400]),
    ("lower-case version", get(version="http/1.1"), [400]),
    ("unknown version", get(version="HTTP/3.0"), [400]),
    ("HTTP/2 preface without ALPN", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [0, 400]),
    # header lines
    ("space before the colon", get(HOST + "X : y\r\n"), [400]),
    ("no colon", get(HOST + "X\r\n"), [400]),
    ("line folding", get(HOST + "X: y\r\n z\r\n"), [400]),
    ("NUL in a value", get(HOST + "X: \0\r\n"), [400]),
    ("bare CR in a value", get(HOST + "X: a\rb\r\n"), [400]),
    ("too many header lines", get(HOST + "X: y\r\n" * 101), [431]),
    ("head too large", get(HOST + "X: " + "y" * 40000 + "\r\n"), [431]),
    # framing
    ("body of a declared length", post("Content-Length: 3", b"abc"), [200]),
    ("chunked body", post("Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"), [200]),
    ("chunked body with a trailer", post("Transfer-Encoding: chunked", b"0\r\nX: y\r\n\r\n"), [200]),
    ("signed length", post("Content-Length: +3", b"abc"), [400]),
    ("list of lengths", post("Content-Length: 3, 3", b"abc"), [400]),
    ("two lengths", post("Content-Length: 3\r\nContent-Length: 4", b"abcd"), [400]),
    ("length of letters", post("Content-Length: abc", b"abc"), [400]),
    ("chunked is not last", post("Transfer-Encoding: chunked, gzip", b"0\r\n\r\n"), [400]),
    ("unknown encoding", post("Transfer-Encoding: gzip", b"abc"), [400]),
    ("negative chunk size", post("Transfer-Encoding: chunked", b"-1\r\n\r\n"), [400]),
    ("chunk size of letters", post("Transfer-Encoding: chunked", b"xyz\r\n\r\n"), [400]),
    ("chunk without its end", post("Transfer-Encoding: chunked", b"3\r\nabcd\r\n0\r\n\r\n"), [400]),
    ("request hidden behind two framings",
     post("Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n" + get()), [200, 400]),
    ("chunked in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
    ("second request after a refusal", get("") + get(), [400]),
]
# Cases of which any one of the statuses is right.
EITHER = {"HTTP/2 preface without ALPN", "request hidden behind two framings"}


def statuses(args, request):
    version = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}[args.tls]
    context = ssl.create_default_context(cafile=args.ca)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(args.cert, args.key)
    received = b""
    with socket.create_connection(("localhost", args.port), timeout=20) as tcp:
        with context.wrap_socket(tcp, server_hostname="localhost") as tls:
            tls.sendall(request)
            tls.settimeout(0.5)
            try:
                while data := tls.recv(65536):
                    received += data
            except (TimeoutError, OSError):
                pass
    # A body without a line end stands before the next status line.
    found = [int(part[:3]) for part in re.split(rb"HTTP/1\.[01] ", received)[1:]]
    return [status for status in found if status >= 200] or [0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    for name in ("--ca", "--tls", "--cert", "--key"):
        parser.add_argument(name, required=True)
    args = parser.parse_args()
    failed = []
    for name, request, expected in CASES:
        found = statuses(args, request)
        is_right = len(found) == 1 and found[0] in expected if name in EITHER else found == expected
        if not is_right:
            failed.append({"case": name, "expected": expected, "found": found})
    print(json.dumps({"failed": failed, "passed": len(CASES) - len(failed)}))


if __name__ == "__main__":
    main()
