"""Python as the client. What came of it is one JSON object on standard output.

    python3 client.py COMMAND --port PORT --ca FILE --tls VERSION [--cert FILE --key FILE]
"""

import argparse
import http.client
import json
import ssl


def connect(args):
    version = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}[args.tls]
    context = ssl.create_default_context(cafile=args.ca)
    context.minimum_version = context.maximum_version = version
    if args.cert:
        context.load_cert_chain(args.cert, args.key)
    return http.client.HTTPSConnection("localhost", args.port, context=context, timeout=20)


def request(connection, method="GET", body=None):
    """`TLS VERSION STATUS BODY`, or a dictionary with the error's name."""
    try:
        connection.request(method, "/", body)
        version = connection.sock.version()
        response = connection.getresponse()
        text = response.read().decode()
        return {"response": f"{version} HTTP/{response.version / 10} {response.status} {text}"}
    except OSError as error:
        return {"error": getattr(error, "reason", None) or repr(error)}


def get(args):
    return request(connect(args))


def keep_alive(args):
    """Several requests, one after the other."""
    connection = connect(args)
    sockets = set()
    responses = []
    for _ in range(5):
        responses.append(request(connection).get("response"))
        sockets.add(connection.sock)
    return {"responses": responses, "connections": len(sockets)}


def post(args):
    """300 kB at once, twenty times: is the response seen, or the alert, each time?"""
    body = bytes(300_000)
    return {"outcomes": [request(connect(args), "POST", body) for _ in range(20)]}


COMMANDS = {"get": get, "keep-alive": keep_alive, "post": post}

parser = argparse.ArgumentParser()
parser.add_argument("command", choices=COMMANDS)
parser.add_argument("--port", type=int)
for name in ["--ca", "--tls", "--cert", "--key"]:
    parser.add_argument(name)
arguments = parser.parse_args()
print(json.dumps(COMMANDS[arguments.command](arguments)))
