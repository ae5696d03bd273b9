"""Malformed and unusual TLS messages of a client: each case has the alert that is right, or "ok".

    python3 tls_cases.py --port PORT --tls VERSION --cert FILE --key FILE

Prints {"failed": [...], "passed": N}. Needs tlslite-ng. The certificate of the server is not
verified: this is about the client's messages.
"""

import argparse
import json
import socket

from tlslite import messages
from tlslite.api import HandshakeSettings, TLSConnection, X509, X509CertChain, parsePEMKey
from tlslite.constants import AlertDescription, ContentType, KeyUpdateMessageType
from tlslite.errors import TLSAbruptCloseError, TLSLocalAlert, TLSRemoteAlert

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class patched:
    """Changes the bytes of a message while the block runs."""

    def __init__(self, message, change):
        self.message, self.write, self.change = message, message.write, change

    def __enter__(self):
        original, change = self.write, self.change
        self.message.write = lambda this: change(bytearray(original(this)))

    def __exit__(self, *_):
        self.message.write = self.write


def with_length(message):
    """The handshake header's length as the message has it."""
    message[1:4] = (len(message) - 4).to_bytes(3, "big")
    return message


def flip_last(message):
    message[-1] ^= 1
    return message


def set_at(index, value):
    def change(message):
        message[index] = value
        return message
    return change


def run(args, change=None, empty=False, record_size=None, after=None):
    version = {"TLSv1.2": (3, 3), "TLSv1.3": (3, 4)}[args.tls]
    settings = HandshakeSettings()
    settings.minVersion = settings.maxVersion = version
    # rustls offers no compression of certificates; tlslite-ng compresses in spite of that.
    settings.certificate_compression_send = ()
    chain, key = None, None
    if not empty:
        certificate = X509()
        certificate.parse(open(args.cert).read())
        chain = X509CertChain([certificate])
        key = parsePEMKey(open(args.key).read(), private=True)
    sock = socket.create_connection(("localhost", args.port), timeout=20)
    connection = TLSConnection(sock)
    if record_size:
        connection.recordSize = record_size
    try:
        if change:
            with patched(*change):
                connection.handshakeClientCert(chain, key, settings=settings)
        else:
            connection.handshakeClientCert(chain, key, settings=settings)
        if after:
            after(connection)
        connection.write(REQUEST)
        received = b""
        while b"hello world" not in received:
            data = connection.read(max=65536, min=1)
            if not data:
                return "closed"
            received += data
        return "ok"
    except TLSRemoteAlert as alert:
        return AlertDescription.toStr(alert.description)
    except (TLSAbruptCloseError, ConnectionError):
        return "closed"
    except TLSLocalAlert as alert:
        return f"the client objects: {alert}"
    finally:
        sock.close()


def update_keys(connection):
    for _ in connection.send_keyupdate_request(KeyUpdateMessageType.update_requested):
        pass


def send_raw(kind, payload):
    def send(connection):
        class Raw:
            contentType = kind

            def write(self):
                return bytearray(payload)
        for _ in connection._sendMsg(Raw(), randomizeFirstBlock=False, update_hashes=False):
            pass
    return send


CERTIFICATE, VERIFY = messages.Certificate, messages.CertificateVerify
BOTH = [
    ("certificate", {}, {"ok"}),
    ("certificate in records of 64 bytes", {"record_size": 64}, {"ok"}),
    ("no certificate", {"empty": True}, {"certificate_required", "handshake_failure"}),
    ("signature with a flipped bit", {"change": (VERIFY, flip_last)}, {"decrypt_error"}),
    ("certificate list cut short", {"change": (CERTIFICATE, lambda it: with_length(it[:-9]))},
     {"decode_error"}),
    ("bytes after the certificate list",
     {"change": (CERTIFICATE, lambda it: with_length(it + b"\0\0"))}, {"decode_error"}),
    ("certificate with a flipped bit", {"change": (CERTIFICATE, lambda it: set_at(60, it[60] ^ 1)(it))},
     {"unknown_ca", "bad_certificate", "certificate_unknown", "decode_error"}),
    ("signature cut short", {"change": (VERIFY, lambda it: with_length(it[:-9]))}, {"decode_error"}),
    ("bytes after the signature", {"change": (VERIFY, lambda it: with_length(it + b"\0"))},
     {"decode_error"}),
    ("unknown signature scheme", {"change": (VERIFY, set_at(4, 0xfe))},
     {"illegal_parameter", "decrypt_error", "handshake_failure"}),
    ("unknown handshake message", {"change": (VERIFY, set_at(0, 0x42))},
     {"unexpected_message", "decode_error"}),
]
TLS13 = [
    ("key update", {"after": update_keys}, {"ok"}),
    ("several key updates", {"after": lambda it: [update_keys(it) for _ in range(4)]}, {"ok"}),
    ("malformed key update", {"after": send_raw(ContentType.handshake, b"\x18\0\0\1\2")},
     {"illegal_parameter", "decode_error"}),
    ("key update with a byte too many", {"after": send_raw(ContentType.handshake, b"\x18\0\0\2\0\0")},
     {"decode_error", "illegal_parameter"}),
    ("handshake message amid data", {"after": send_raw(ContentType.handshake, b"\x0b\0\0\0")},
     {"unexpected_message", "decode_error"}),
    ("application data amid a handshake message", {"after": lambda it: (
        send_raw(ContentType.handshake, b"\x18\0\0")(it),
        send_raw(ContentType.application_data, REQUEST)(it))},
     {"unexpected_message", "closed"}),  # rustls closes without an alert
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca")
    for name in ("--tls", "--cert", "--key"):
        parser.add_argument(name, required=True)
    args = parser.parse_args()
    cases = BOTH + (TLS13 if args.tls == "TLSv1.3" else [])
    failed = []
    for name, options, right in cases:
        found = run(args, **options)
        if found not in right:
            failed.append({"case": name, "expected": sorted(right), "found": found})
    print(json.dumps({"failed": failed, "passed": len(cases) - len(failed)}))


if __name__ == "__main__":
    main()
