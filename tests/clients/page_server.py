"""Serves the browser app's pages: static files, on an origin that is not the broker's."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

PAGES: Final = Path(__file__).parent / "browser_app"


class _Pages(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: the URLs hold codes."""


@contextmanager
def running_pages() -> Iterator[str]:
    """Serve the pages until the block ends, and give their origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Pages, directory=PAGES))
    serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
