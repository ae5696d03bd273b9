"""HTTP/2 frames by hand, grouped as RFC 9113: each case has the reactions that are right.

    python3 http2_cases.py --port PORT --ca FILE --tls VERSION --cert FILE --key FILE

Prints {"failed": [...], "passed": N}. Needs hyperframe and hpack. A reaction is "ok" (status 200),
"goaway:CODE", "reset:CODE", "status:N" or "closed".
"""

import argparse
import json
import socket
import ssl
import struct

from hpack import Decoder, Encoder
from hyperframe.frame import Frame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK, PADDED = 1, 4, 1, 8
ERRORS = ["NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
          "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
          "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"]


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def block(*extra, without=(), **pseudo):
    fields = {":method": "GET", ":scheme": "https", ":path": "/", ":authority": "localhost"}
    fields.update({":" + name: value for name, value in pseudo.items()})
    head = [(name, value) for name, value in fields.items() if name not in without]
    return Encoder().encode(head + list(extra), huffman=False)


def request(stream=1, flags=END_STREAM | END_HEADERS, payload=None):
    return frame(HEADERS, flags, stream, block() if payload is None else payload)


def post(stream=1, *extra):
    return frame(HEADERS, END_HEADERS, stream, block(*extra, method="POST"))


def setting(name, value):
    return frame(SETTINGS, 0, 0, struct.pack("!HI", name, value))


def goaway(*codes):
    # h2 uses PROTOCOL_ERROR where the RFC has a code of its own, and the connection may be closed
    # before the client reads the reason.
    return {f"goaway:{code}" for code in codes} | {"goaway:PROTOCOL_ERROR", "closed"}


def stream_error(*codes):
    return goaway(*codes) | {f"reset:{code}" for code in codes}


BAD = {"status:400"} | stream_error("PROTOCOL_ERROR")
CASES = [
    # 3. The connection
    ("plain request", request(), {"ok"}),
    ("two requests", request() + request(3), {"ok"}),
    ("ping", frame(PING, 0, 0, b"x" * 8) + request(), {"ok"}),
    ("priority", frame(PRIORITY, 0, 1, bytes(4) + b"\x10") + request(3), {"ok"}),
    ("unknown frame type", frame(0x42, 0, 0, b"x") + request(), {"ok"}),
    ("unknown setting", setting(0x42, 1) + request(), {"ok"}),
    ("body", post() + frame(DATA, END_STREAM, 1, b"abc"), {"ok"}),
    ("padded body", post() + frame(DATA, END_STREAM | PADDED, 1, b"\2abc\0\0"), {"ok"}),
    ("head in two frames", request(flags=END_STREAM, payload=block()[:3])
     + frame(CONTINUATION, END_HEADERS, 1, block()[3:]), {"ok"}),
    ("trailers", post() + frame(DATA, 0, 1, b"abc")
     + frame(HEADERS, END_STREAM | END_HEADERS, 1, Encoder().encode([("x", "y")])), {"ok"}),
    # 4. Frames and header compression
    ("frame over the maximum size", post() + frame(DATA, END_STREAM, 1, bytes(16385)),
     stream_error("FRAME_SIZE_ERROR")),
    ("headers over the maximum size", frame(HEADERS, 5, 1, bytes(16385)), goaway("FRAME_SIZE_ERROR")),
    ("malformed header block", frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
     goaway("COMPRESSION_ERROR")),
    ("index beyond the table", frame(HEADERS, 5, 1, b"\xff\x80\x01"), goaway("COMPRESSION_ERROR")),
    ("table size over the limit", frame(HEADERS, 5, 1, b"\x3f\xe1\xff\x03" + block()),
     goaway("COMPRESSION_ERROR")),
    ("frame between head and continuation", request(flags=END_STREAM) + frame(PING, 0, 0, bytes(8)),
     goaway("PROTOCOL_ERROR")),
    ("continuation of another stream", request(flags=END_STREAM)
     + frame(CONTINUATION, END_HEADERS, 3, b""), goaway("PROTOCOL_ERROR")),
    # 5. Streams
    ("even stream", request(2), goaway("PROTOCOL_ERROR")),
    ("stream number that decreases", request(5) + request(3),
     goaway("PROTOCOL_ERROR", "STREAM_CLOSED")),
    ("data on an idle stream", frame(DATA, END_STREAM, 1, b"x"), goaway("PROTOCOL_ERROR")),
    ("reset of an idle stream", frame(RESET, 0, 1, bytes(4)), goaway("PROTOCOL_ERROR")),
    ("window update of an idle stream", frame(WINDOW, 0, 1, b"\0\0\0\1"), goaway("PROTOCOL_ERROR")),
    ("data after the end of a stream", request() + frame(DATA, END_STREAM, 1, b"x"),
     stream_error("STREAM_CLOSED", "PROTOCOL_ERROR")),
    ("continuation without a head", frame(CONTINUATION, END_HEADERS, 1, block()),
     goaway("PROTOCOL_ERROR")),
    # 6. Frame types
    ("data on stream 0", frame(DATA, 0, 0, b"x"), goaway("PROTOCOL_ERROR")),
    ("headers on stream 0", request(0), goaway("PROTOCOL_ERROR")),
    ("padding longer than the frame", post() + frame(DATA, END_STREAM | PADDED, 1, b"\x09abc"),
     goaway("PROTOCOL_ERROR")),
    ("reset of the wrong size", request() + frame(RESET, 0, 1, bytes(3)), goaway("FRAME_SIZE_ERROR")),
    ("settings on a stream", frame(SETTINGS, 0, 1), goaway("PROTOCOL_ERROR")),
    ("settings of the wrong size", frame(SETTINGS, 0, 0, bytes(5)), goaway("FRAME_SIZE_ERROR")),
    ("acknowledgement with a payload", frame(SETTINGS, ACK, 0, bytes(6)), goaway("FRAME_SIZE_ERROR")),
    ("ENABLE_PUSH of 2", setting(2, 2), goaway("PROTOCOL_ERROR")),
    ("window over the maximum", setting(4, 1 << 31), goaway("FLOW_CONTROL_ERROR")),
    ("frame size below the minimum", setting(5, 16383), goaway("PROTOCOL_ERROR")),
    ("frame size over the maximum", setting(5, 1 << 24), goaway("PROTOCOL_ERROR")),
    ("push from a client", request() + frame(PUSH, END_HEADERS, 1, b"\0\0\0\2" + block()),
     goaway("PROTOCOL_ERROR")),
    ("ping on a stream", frame(PING, 0, 1, bytes(8)), goaway("PROTOCOL_ERROR")),
    ("ping of the wrong size", frame(PING, 0, 0, bytes(7)), goaway("FRAME_SIZE_ERROR")),
    ("goaway on a stream", frame(GOAWAY, 0, 1, bytes(8)), goaway("PROTOCOL_ERROR")),
    ("window update of 0", frame(WINDOW, 0, 0, bytes(4)), goaway("PROTOCOL_ERROR")),
    ("window update of the wrong size", frame(WINDOW, 0, 0, bytes(3)), goaway("FRAME_SIZE_ERROR")),
    ("connection window that overflows", frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2,
     goaway("FLOW_CONTROL_ERROR")),
    ("stream window that overflows", post() + frame(WINDOW, 0, 1, b"\x7f\xff\xff\xff") * 2,
     stream_error("FLOW_CONTROL_ERROR")),
    # 8. HTTP
    ("upper-case name", request(payload=block(("X", "y"))), BAD),
    ("unknown pseudo-header", request(payload=block((":x", "y"))), BAD),
    ("pseudo-header after a field", request(payload=block(("x", "y"), (":path", "/"))), BAD),
    ("two paths", request(payload=block((":path", "/"))), BAD),
    ("no method", request(payload=block(without=[":method"])), BAD),
    ("no scheme", request(payload=block(without=[":scheme"])), BAD),
    ("no path", request(payload=block(without=[":path"])), BAD),
    ("empty path", request(payload=block(path="")), BAD),
    ("connection header", request(payload=block(("connection", "close"))), BAD),
    ("te of gzip", request(payload=block(("te", "gzip"))), BAD),
    ("te of trailers", request(payload=block(("te", "trailers"))), {"ok"}),
    ("body shorter than declared", post(1, ("content-length", "4")) + frame(DATA, END_STREAM, 1, b"abc"),
     BAD),
    ("body longer than declared", post(1, ("content-length", "2")) + frame(DATA, END_STREAM, 1, b"abc"),
     BAD),
    ("trailer with a pseudo-header", post() + frame(DATA, 0, 1, b"a")
     + frame(HEADERS, END_STREAM | END_HEADERS, 1, Encoder().encode([(":path", "/")])), BAD | {"ok"}),  # h2 ignores it, and services do not see it
    ("no authority and no host", request(payload=block(without=[":authority"])), {"status:400"}),
    ("malformed authority", request(payload=block(authority="u@a")), BAD),
    ("host that differs", request(payload=block(("host", "b"))), {"status:400"}),
    ("two hosts", request(payload=block(("host", "localhost"), ("host", "localhost"))), {"status:400"}),
    ("CONNECT", request(payload=block(without=[":scheme", ":path"], method="CONNECT")), {"status:405"}),
    ("TRACE", request(payload=block(method="TRACE")), {"status:405"}),
    ("too many fields", request(payload=block(*[("x", "y")] * 101)), {"status:431"}),
]


def reaction(args, sent):
    version = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}[args.tls]
    context = ssl.create_default_context(cafile=args.ca)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(args.cert, args.key)
    context.set_alpn_protocols(["h2"])
    decoder, buffer, result = Decoder(), b"", "closed"
    with socket.create_connection(("localhost", args.port), timeout=20) as tcp:
        with context.wrap_socket(tcp, server_hostname="localhost") as tls:
            try:
                tls.sendall(PREFACE + frame(SETTINGS, 0, 0) + sent)
                tls.settimeout(1)
                while True:
                    while len(buffer) < 9 or len(buffer) < 9 + int.from_bytes(buffer[:3], "big"):
                        data = tls.recv(65536)
                        if not data:
                            return result
                        buffer += data
                    received, length = Frame.parse_frame_header(memoryview(buffer[:9]))
                    received.parse_body(memoryview(buffer[9:9 + length]))
                    buffer = buffer[9 + length:]
                    if received.type == HEADERS:
                        status = dict(decoder.decode(received.data))[":status"]
                        result = "ok" if status == "200" else f"status:{status}"
                        if result != "ok":
                            return result
                    elif received.type == RESET and received.error_code:
                        return f"reset:{ERRORS[received.error_code]}"
                    elif received.type == GOAWAY and received.error_code:
                        return f"goaway:{ERRORS[received.error_code]}"
            except TimeoutError:
                return result if result == "ok" else "silence"
            except OSError:
                return "closed"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    for name in ("--ca", "--tls", "--cert", "--key"):
        parser.add_argument(name, required=True)
    args = parser.parse_args()
    failed = []
    for name, sent, right in CASES:
        found = reaction(args, sent)
        if found not in right:
            failed.append({"case": name, "expected": sorted(right), "found": found})
    print(json.dumps({"failed": failed, "passed": len(CASES) - len(failed)}))


if __name__ == "__main__":
    main()
