"""`broker serve`: production settings, or no start."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import structlog
import typer
import uvicorn
import uvloop

from broker import log as logging_setup
from broker.app import open_broker
from broker.cli.session import ConfigOption, StateOption, read_deployment
from broker.clock import system_clock
from broker.errors import ConfigurationError
from broker.kms.opening import open_kek, open_signing
from broker.secret import Secret
from broker.settings import Deployment, Settings, load
from broker.settings.proof_rules import expiring_secrets, without_proxy
from broker.store.connection import connect, resolve
from broker.vault import KeyEncryptionKeys
from broker.web.server import server_config

log = structlog.get_logger()

_OBJECTS: Final = 100_000
"""New objects between two rounds; what requests leave behind has few cycles."""
_YOUNG_ROUNDS, _OLD_ROUNDS = 50, 100


class _Server(uvicorn.Server):
    """Keeps the signals: uvicorn raises them again once it has served, when a refresh may still be under way."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on the first SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
        yield


def serve(
    config: ConfigOption = None,
    state: StateOption = None,
    host: Annotated[str | None, typer.Option(help="address to listen on (default: BROKER_HOST)")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on (default: BROKER_PORT)", min=0, max=65535)] = None,
    fd: Annotated[
        int | None, typer.Option(help="listening socket handed over by the parent, instead of a port")
    ] = None,
) -> None:
    """Serve apps and EHRs until SIGTERM, then finish the requests under way."""
    logging_setup.configure()
    deployment = read_deployment(config, state)
    with (
        resolve(deployment.redis_url, state_dir=deployment.state, allow_embedded=False) as store,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        kek = open_kek(os.environ)
        settings = load(deployment.config, os.environ)
        _check_proofs(deployment, settings)
        listener = socket.socket(fileno=fd) if fd is not None else _listen(deployment, host, port)
        runner.run(serve_until_stopped(deployment, store, settings, kek, listener))


def _keep_what_stays() -> None:
    """Take what is there now out of the garbage collector's rounds, which would last milliseconds: it stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS, _YOUNG_ROUNDS, _OLD_ROUNDS)


def _check_proofs(deployment: Deployment, settings: Settings) -> None:
    """Warn of secrets that expire. Raises `ConfigurationError` for apps that could never authenticate."""
    if deployment.certificate_header is None and (faults := list(without_proxy(settings))):
        raise ConfigurationError(*faults)
    for text in expiring_secrets(settings, system_clock()):
        log.warning("secret_expires", detail=text)


def _listen(deployment: Deployment, host: str | None, port: int | None) -> socket.socket:
    place = (host or deployment.host, deployment.port if port is None else port)
    try:
        return socket.create_server(place, family=socket.AF_INET6 if ":" in place[0] else socket.AF_INET)
    except OSError as error:
        cause = os.strerror(error.errno or 0)
        raise ConfigurationError(f"cannot listen on {place[0]} port {place[1]}: {cause}") from None


async def serve_until_stopped(
    deployment: Deployment, store: Secret, settings: Settings, kek: KeyEncryptionKeys, listener: socket.socket
) -> None:
    """Open the rooms, serve, drain on SIGTERM, close. Raises `ConfigurationError`, `StoreUnavailable`."""
    redis, signing = connect(store, durability=deployment.durability), open_signing(os.environ)
    server: uvicorn.Server | None = None
    try:
        async with open_broker(
            settings,
            redis=redis,
            kek=kek,
            signing=signing,
            audit_file=deployment.audit_file,
            certificate_header=deployment.certificate_header,
            is_draining=lambda: server is not None and server.should_exit,
            witness_file=deployment.state / "witness.json",
        ) as broker:
            server = _Server(
                server_config(
                    broker.application,
                    proxies=deployment.proxies,
                    timeout_graceful_shutdown=deployment.drain_seconds,
                )
            )
            _keep_what_stays()
            log.info("serving", public_url=settings.public_url, ehrs=len(settings.ehr), apps=len(settings.app))
            await server.serve(sockets=[listener])
    finally:
        await signing.close()
        await kek.close()
        await redis.aclose()
