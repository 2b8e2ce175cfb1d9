"""`python -m sandbox`: the simulated EHR as a program."""

import argparse
import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sandbox.app import create_app
from sandbox.control import add_client
from sandbox.faults import FAULTS, FOREVER
from sandbox.oauth.server import AuthorizationServer
from sandbox.settings import Settings

GRACE = 1
"""Seconds open requests have to finish when the program is told to end."""


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 that hands the application a way to close the connection: a dropped answer is a fault like any other."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take note of the connection."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "close_connection": transport.close}


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
        config = uvicorn.Config(
            app,
            http=Protocol,
            log_config=None,
            log_level="critical",
            access_log=False,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            Server(config, settings.public_url).run(sockets=[listener])
        except KeyboardInterrupt:
            sys.exit(0)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; ends the program with a usage text when they make no sense."""
    parser = argparse.ArgumentParser(prog="sandbox", description="A simulated EHR. All data is synthetic.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9400, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--public-url", help="origin under which it is reached (default: http://HOST:PORT)")
    parser.add_argument("--auto-approve", action="store_true", help="no login, patient or approval pages")
    parser.add_argument("--client", type=Path, action="append", default=[], metavar="FILE.json",
                        help="register the client, or list of clients, of this file; may be repeated")  # fmt: skip
    parser.add_argument("--patients", type=_positive, default=200, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of the population (default: %(default)s)")
    for name, default in (("access-token", 3600), ("code", 60), ("launch", 300), ("session", 28_800)):
        parser.add_argument(f"--{name}-lifetime", type=_positive, default=default, metavar="SECONDS",
                            help="(default: %(default)s)")  # fmt: skip
    parser.add_argument("--lenient-aud", action="store_true", help="tolerate a trailing slash in aud")
    parser.add_argument("--response-iss", action="store_true", help="send iss in authorization responses (RFC 9207)")
    parser.add_argument("--list-faults", action="store_true", help="print the faults that can be armed, and end")
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace, port: int) -> Settings:
    """Return the settings, now that the port is known."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    chosen: dict[str, Any] = {field.name: getattr(options, field.name) for field in fields(Settings)}
    public_url = (options.public_url or f"http://{host}:{port}").rstrip("/")
    return Settings(**{**chosen, "public_url": public_url})


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        sys.exit(f"sandbox: cannot listen on {host} port {port}: {error.strerror}")


def _add_clients(server: AuthorizationServer, path: Path) -> None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        for client in document if isinstance(document, list) else [document]:
            add_client(server, client)
    except (OSError, ValueError) as error:
        sys.exit(f"sandbox: {path}: {error}")


def _fault_lines() -> list[str]:
    lines = []
    for fault in FAULTS:
        parameters = ", ".join(f"{name}={json.dumps(value)}" for name, value in fault.parameters.items())
        lasting = "; until deleted" if fault.times == FOREVER else ""
        lines.append(f"{fault.name:24} {fault.says}{f' ({parameters})' if parameters else ''}{lasting}")
    return lines


if __name__ == "__main__":
    main()
