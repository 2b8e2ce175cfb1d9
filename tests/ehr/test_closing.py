"""An answer that only the end of its connection ends: over TLS anybody on the way could cut it short."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from broker.egress import Egress
from broker.errors import EhrAnswerLost
from tests.ehr.server import reply
from tests.ehr.test_egress import certificate_for
from tests.ehr.test_upstream import ask

LINES = b'{"resourceType":"Patient","id":"1"}\n' * 2000
TO_THE_END = b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+ndjson\r\n\r\n" + LINES
End = Callable[[ssl.SSLSocket], object]


def with_an_alert(connection: ssl.SSLSocket) -> None:
    with suppress(OSError):  # the alert in return need not come
        connection.unwrap()


def without_a_word(connection: ssl.SSLSocket) -> None:
    """As whoever is on the way can do it: the connection below TLS is closed in order."""
    connection.shutdown(socket.SHUT_WR)


async def asked(answer: bytes, end: End, version: ssl.TLSVersion, folder: Path) -> tuple[int, bytes]:
    """Ask a server that answers, ends the connection like that, and waits until the other side is closed, too."""
    context, trusting = certificate_for("127.0.0.1", folder)
    context.maximum_version = version

    def serve() -> None:
        accepted, _ = listening.accept()
        with context.wrap_socket(accepted, server_side=True) as connection:
            connection.recv(1 << 16)
            connection.sendall(answer)
            end(connection)
            with suppress(OSError):
                connection.recv(1)

    egress = Egress(allow_private_hosts=["127.0.0.1"], certificates=trusting)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        serving = asyncio.create_task(asyncio.to_thread(serve))
        try:
            return await ask(egress, f"https://127.0.0.1:{listening.getsockname()[1]}/a", timeout=2)
        finally:
            await egress.close()
            await serving


both_versions = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


@both_versions
async def test_an_answer_to_the_end_of_the_connection_is_whole_if_the_ehr_has_closed_it(
    version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """(PX-12) (RFC 9112 §9.8)."""
    assert await asked(TO_THE_END, with_an_alert, version, tmp_path) == (200, LINES)


@both_versions
async def test_one_that_ends_without_the_alert_is_a_lost_one(version: ssl.TLSVersion, tmp_path: Path) -> None:
    """(PX-12) (RFC 9112 §9.8): a file of an export would be short by lines that nobody misses."""
    with pytest.raises(EhrAnswerLost, match="broke off"):
        await asked(TO_THE_END, without_a_word, version, tmp_path)


@both_versions
async def test_one_that_says_itself_where_it_ends_needs_no_alert(version: ssl.TLSVersion, tmp_path: Path) -> None:
    """(RFC 9112 §9.8)."""
    assert await asked(reply(LINES), without_a_word, version, tmp_path) == (200, LINES)
