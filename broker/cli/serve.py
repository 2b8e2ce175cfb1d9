"""`broker serve`: production settings, or no start."""

import asyncio
import os
import socket
from typing import Annotated

import structlog
import typer
import uvicorn
import uvloop

from broker import log as logging_setup
from broker.app import open_broker
from broker.cli.session import NO_STORE, ConfigOption, StateOption, read_deployment
from broker.errors import ConfigurationError
from broker.settings import Deployment, Settings, load
from broker.settings.deployment import key_encryption_keys
from broker.store.connection import connect

log = structlog.get_logger()


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
    if deployment.redis_url is None:
        raise ConfigurationError(NO_STORE)
    keys = key_encryption_keys(os.environ)
    settings = load(deployment.config, os.environ)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        listener = socket.socket(fileno=fd) if fd is not None else None
        runner.run(serve_until_stopped(deployment, settings, keys, host=host, port=port, listener=listener))


async def serve_until_stopped(
    deployment: Deployment,
    settings: Settings,
    keys: list[bytes],
    *,
    host: str | None,
    port: int | None,
    listener: socket.socket | None,
) -> None:
    """Open the rooms, listen, drain on SIGTERM, close. Raises `ConfigurationError`, `StoreUnavailable`."""
    if deployment.redis_url is None:
        raise ConfigurationError(NO_STORE)
    redis = connect(deployment.redis_url)
    server: uvicorn.Server | None = None
    try:
        async with open_broker(
            settings,
            redis=redis,
            keys=keys,
            audit_file=deployment.audit_file,
            is_draining=lambda: server is not None and server.should_exit,
        ) as broker:
            server = uvicorn.Server(
                uvicorn.Config(
                    broker.application,
                    host=host or deployment.host,
                    port=deployment.port if port is None else port,
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    date_header=True,
                    proxy_headers=bool(deployment.forwarded_allow_ips),
                    forwarded_allow_ips=deployment.forwarded_allow_ips or [],
                    timeout_keep_alive=20,
                    timeout_graceful_shutdown=deployment.drain_seconds,
                    h11_max_incomplete_event_size=64 * 1024,
                    lifespan="off",
                    ws="none",
                )
            )
            log.info("serving", public_url=settings.public_url, ehrs=len(settings.ehr), apps=len(settings.app))
            await server.serve(sockets=[listener] if listener else None)
    finally:
        await redis.aclose()
