"""How the application is served: limits and quiet, written out."""

from typing import Any, Final

import uvicorn
from fastapi import FastAPI

HEAD_BYTES: Final = 64 * 1024
"""Most that a request line and its headers may be."""
MOST_CONNECTIONS: Final = 1000
KEEP_ALIVE_SECONDS: Final = 20


def server_config(application: FastAPI, **more: Any) -> uvicorn.Config:
    """Return the configuration of a server for the broker's application; `more` are further options of uvicorn's."""
    return uvicorn.Config(
        application,
        http="h11",  # the other parser sets no limit to the size of a request's head
        h11_max_incomplete_event_size=HEAD_BYTES,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        access_log=False,  # it would hold codes, states and search values
        log_config=None,
        server_header=False,
        lifespan="off",
        ws="none",
        **more,
    )
