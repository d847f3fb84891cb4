"""
The application: it answers with whom it saw. Standard library only; started in a pod's namespace.

    app.py HTTP_PORT [TCP_PORT]

`/ip` is what httpbin answers there: the first address of X-Forwarded-For if there is one, else the socket's peer.
Anything else is what the socket and the headers say. The TCP port answers each line with the peer. IPv4 and IPv6.
"""

import http.server
import json
import socket
import socketserver
import sys
import threading
from typing import Final

HEADERS: Final = ("x-forwarded-for", "x-forwarded-proto", "x-envoy-external-address", "x-forwarded-client-cert")


def plain(address: str) -> str:
    """Return an IPv4 address as such where a socket of both families shows it as ::ffff:a.b.c.d."""
    return address.removeprefix("::ffff:")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers any GET."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        peer = plain(self.client_address[0])
        forwarded = self.headers.get("x-forwarded-for")
        answer = {
            "origin": forwarded or peer,
            "peer": peer,
            "peer_port": self.client_address[1],
            "headers": {name: self.headers[name] for name in HEADERS if name in self.headers},
        }
        body = json.dumps(answer).encode() + b"\n"
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        print(self.client_address, format % args, flush=True)


class Line(socketserver.BaseRequestHandler):
    """Waits for a line first: a server that speaks first would hang where the sidecar looks for TLS."""

    def handle(self) -> None:
        self.request.recv(100)
        self.request.sendall(f"{plain(self.client_address[0])} {self.client_address[1]}\n".encode())


class Server(socketserver.ThreadingTCPServer):
    """Listens on IPv4 and IPv6 with one socket."""

    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def main() -> None:
    for port in sys.argv[2:]:
        server = Server(("::", int(port)), Line)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    Server(("::", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
