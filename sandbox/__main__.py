"""`python -m sandbox`: the simulated EHR as a program."""

import asyncio
import json
import signal
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandbox.app import create_app
from sandbox.control import add_client
from sandbox.faults import FAULTS, FOREVER, FaultError
from sandbox.oauth.server import AuthorizationServer
from sandbox.options import parse, settings_of
from sandbox.settings import Settings
from sandbox.tls import make_certificates

GRACE = 1
"""Seconds open requests have to finish when the program is told to end."""


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 that hands the application a way to close the connection, and the certificate at its other end.

    A dropped answer is a fault like any other, and RFC 8705 needs the certificate, in DER.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take note of the connection."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.app_state = {
            **self.app_state,
            "close_connection": transport.close,
            "client_certificate": tls.getpeercert(binary_form=True) if tls else None,
        }


class Server(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, public_url: str) -> None:
        super().__init__(config)
        self._public_url = public_url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then print the one line this program prints."""
        await super().startup(sockets)
        print(f"sandbox: ready {self._public_url}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until SIGTERM or SIGINT."""
    options = parse(arguments)
    if options.list_faults:
        print("\n".join(_fault_lines()))
        return
    with _listener(options.host, options.port) as listener:
        settings = settings_of(options, listener.getsockname()[1])
        app = create_app(settings, time.time)
        for path in options.client:
            _add_clients(app.state.server, path)
        for fault in options.fault:
            _arm(app.state.server, fault)
        config = uvicorn.Config(
            app,
            http=Protocol,
            log_config=None,
            log_level="critical",
            access_log=False,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=GRACE,
            **(_tls(options.tls, settings) if options.tls else {}),
        )
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            Server(config, settings.public_url).run(sockets=[listener])
        except KeyboardInterrupt:
            sys.exit(0)


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        sys.exit(f"sandbox: cannot listen on {host} port {port}: {error.strerror}")


def _tls(directory: Path, settings: Settings) -> dict[str, Any]:
    """Return what uvicorn needs for https; a client certificate is optional, as public clients have none."""
    hosts = {urlsplit(settings.public_url).hostname or "localhost", "localhost", "127.0.0.1", "::1"}
    certificates = make_certificates(directory, sorted(hosts), datetime.now(UTC))
    return {
        "ssl_certfile": certificates.server,
        "ssl_keyfile": certificates.server_key,
        "ssl_ca_certs": settings.client_ca,
        "ssl_cert_reqs": ssl.CERT_OPTIONAL if settings.client_ca else ssl.CERT_NONE,
    }


def _add_clients(server: AuthorizationServer, path: Path) -> None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        for client in document if isinstance(document, list) else [document]:
            add_client(server, client)
    except (OSError, ValueError) as error:
        sys.exit(f"sandbox: {path}: {error}")


def _arm(server: AuthorizationServer, fault: Any) -> None:
    try:
        server.faults.arm(fault)
    except FaultError as error:
        sys.exit(f"sandbox: --fault {json.dumps(fault)}: {error}")


def _fault_lines() -> list[str]:
    lines = []
    for fault in FAULTS:
        parameters = ", ".join(f"{name}={json.dumps(value)}" for name, value in fault.parameters.items())
        lasting = "; until deleted" if fault.times == FOREVER else ""
        lines.append(f"{fault.name:24} {fault.says}{f' ({parameters})' if parameters else ''}{lasting}")
    return lines


if __name__ == "__main__":
    main()
