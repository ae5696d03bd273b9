"""A WSGI app that decides by who asks, as `HTTP_CLIENT_CERT` (RFC 9440) says.

    python3 wsgi.py FINGERPRINT

It prints its port, then one JSON object for each request that it has seen.
"""

import base64
import hashlib
import json
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


def app(environ, start_response):
    received = {name: value for name, value in environ.items() if name.startswith("HTTP_")}
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    seen = {"method": environ["REQUEST_METHOD"], "url": environ["PATH_INFO"], "length": len(body)}
    print(json.dumps({**seen, "headers": received}), flush=True)
    value = received.get("HTTP_CLIENT_CERT", "")
    der = base64.b64decode(value[1:-1], validate=True) if value[:1] == value[-1:] == ":" else b""
    who = hashlib.sha256(der).hexdigest()
    status = "200 OK" if who == sys.argv[1] else "401 Unauthorized"
    response = json.dumps({"who": who, "reported": received.get("HTTP_X_CLIENT_CERT_FINGERPRINT")}).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(response)))])
    return [response]


server = make_server("127.0.0.1", 0, app, handler_class=Handler)
print(server.server_port, flush=True)
server.serve_forever()
