import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.egress import Answer, Egress
from broker.errors import EhrAnswerLost, EhrAnswerUnreadable, EhrMisbehaved, EhrUnreachable
from tests.ehr.server import ScriptedServer, hang_up, reply, scripted_server, silence
from tests.stories.held import until


async def get(egress: Egress, url: str, *, timeout: float = 5, limit: int = 1 << 20) -> Answer:
    return await egress.fetch("GET", url, headers={"Accept": "application/json"}, timeout=timeout, limit=limit)


async def stream(egress: Egress, url: str, *, timeout: float = 5) -> bytes:
    async with egress.stream("GET", url, headers={}, timeout=timeout) as answer:
        return b"".join([chunk async for chunk in answer.chunks])


async def test_an_answer_is_read_whole(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/a?b=c"] = reply('{"a":1}', "CONTENT-TYPE: application/json", status="201 Created")

    answer = await get(egress, f"{ehr.url}/a?b=c")

    assert (answer.status, answer.body, answer.headers["content-type"]) == (201, b'{"a":1}', "application/json")


async def test_a_request_carries_what_it_was_given_and_little_else(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/token"] = reply("{}")

    await egress.fetch("POST", f"{ehr.url}/token", headers={"Accept": "application/json"}, content=b"a=b", timeout=5)

    (request,) = ehr.requests
    assert (request.method, request.body) == ("POST", b"a=b")
    assert request.headers.pop("user-agent").startswith("smart-token-broker/")
    assert request.headers == {
        "host": ehr.url.removeprefix("http://"),
        "accept": "application/json",
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "content-length": "3",
    }


def test_an_answer_does_not_show_its_body() -> None:
    assert repr(Answer(200, {"x": "canary"}, b"canary")) == "Answer(200, 6 bytes)"


async def test_plain_http_beyond_loopback_is_refused_without_a_connection(egress: Egress) -> None:
    """TK-08: 127.0.0.2 would answer, but it is not one of the names of loopback that are allowed."""
    async with scripted_server({"/": reply("{}")}, host="127.0.0.2") as other:
        with pytest.raises(EhrMisbehaved, match="not https"):
            await get(egress, f"{other.url}/")
        with pytest.raises(EhrMisbehaved, match="not https"):
            await stream(egress, f"{other.url}/")

    assert other.connections == 0


async def test_plain_http_to_loopback_is_refused_unless_it_is_allowed(ehr: ScriptedServer) -> None:
    """TK-08."""
    strict = Egress()
    try:
        with pytest.raises(EhrMisbehaved, match="not https"):
            await get(strict, ehr.url)
    finally:
        await strict.close()

    assert ehr.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/relative",
        "//127.0.0.1/",
        "https://",
        "https:///path",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "unix:///run/socket",
        "http://localhost.evil.example/",
        "http://127.0.0.1@evil.example/",
        "http://evil.example#@127.0.0.1/",
        "http://evil.example\\@127.0.0.1/",
        "http://user@127.0.0.1/",
        "https://user:canary@ehr.example/",
        "https://[::1",
        "https://[zz]/",
        "http://127.0.0.1:port/",
        "http://0.0.0.0/",
        "http://127.1/",
        "http://[::ffff:127.0.0.1]/",
    ],
)
async def test_a_url_that_may_not_be_called_is_refused(egress: Egress, url: str) -> None:
    """TK-06, TK-08."""
    with pytest.raises(EhrMisbehaved) as raised:
        await get(egress, url)

    assert "canary" not in raised.value.detail


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_answered_and_not_followed(egress: Egress, ehr: ScriptedServer, status: str) -> None:
    """PX-05."""
    ehr.answers["/a"] = reply("", f"Location: {ehr.url}/b", status=status)

    assert str((await get(egress, f"{ehr.url}/a")).status) == status[:3]
    async with egress.stream("GET", f"{ehr.url}/a", headers={}, timeout=5) as answer:
        assert str(answer.status) == status[:3]

    assert [request.target for request in ehr.requests] == ["/a", "/a"]


async def test_cookies_are_not_kept(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/a"] = reply("", "Set-Cookie: session=canary; Path=/")

    for _ in range(2):
        await get(egress, f"{ehr.url}/a")
        await stream(egress, f"{ehr.url}/a")

    assert all("cookie" not in request.headers for request in ehr.requests)


async def test_an_answer_at_the_limit_is_read_and_one_byte_more_is_refused(egress: Egress, ehr: ScriptedServer) -> None:
    """PX-12."""
    ehr.answers["/a"] = reply(b"x" * 1000)

    assert len((await get(egress, f"{ehr.url}/a", limit=1000)).body) == 1000
    with pytest.raises(EhrAnswerUnreadable, match="an answer of more than 999 bytes"):
        await get(egress, f"{ehr.url}/a", limit=999)


async def test_an_endless_answer_is_cut_off_at_the_limit(egress: Egress, ehr: ScriptedServer) -> None:
    """PX-12."""

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 65536)
            await writer.drain()

    ehr.answers["/a"] = endless

    with pytest.raises(EhrAnswerUnreadable, match="more than 1048576 bytes"):
        await get(egress, f"{ehr.url}/a")


async def test_a_compressed_answer_is_read_although_none_was_asked_for(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/a"] = reply(gzip.compress(b'{"a":1}'), "Content-Encoding: gzip")

    assert (await get(egress, f"{ehr.url}/a")).body == b'{"a":1}'
    assert await stream(egress, f"{ehr.url}/a") == b'{"a":1}'


async def test_a_compressed_answer_counts_by_its_full_size(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/a"] = reply(gzip.compress(b"x" * 5_000_000), "Content-Encoding: gzip")

    with pytest.raises(EhrAnswerUnreadable, match="more than"):
        await get(egress, f"{ehr.url}/a")


async def test_a_broken_compression_is_a_lost_answer(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/a"] = reply(b"not gzip", "Content-Encoding: gzip")

    with pytest.raises(EhrAnswerLost, match="broke off"):
        await get(egress, f"{ehr.url}/a")


async def test_silence_is_a_lost_answer(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/a"] = silence

    with pytest.raises(EhrAnswerLost):
        await get(egress, f"{ehr.url}/a", timeout=0.1)
    with pytest.raises(EhrAnswerLost):
        await stream(egress, f"{ehr.url}/a", timeout=0.1)


async def test_a_slow_answer_is_lost_when_its_time_is_over(egress: Egress, ehr: ScriptedServer) -> None:
    """PX-12: each byte comes in time, the whole does not."""

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.02)

    ehr.answers["/a"] = drip

    with pytest.raises(EhrAnswerLost, match=r"no answer within 0\.2 s"):
        await get(egress, f"{ehr.url}/a", timeout=0.2)


async def test_a_closed_connection_is_a_lost_answer(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/a"] = hang_up

    with pytest.raises(EhrAnswerLost):
        await get(egress, f"{ehr.url}/a")


async def test_a_body_that_breaks_off_is_a_lost_answer(egress: Egress, ehr: ScriptedServer) -> None:
    async def half(writer: asyncio.StreamWriter) -> None:
        writer.write(reply("0123456789")[:-5])

    ehr.answers["/a"] = half

    with pytest.raises(EhrAnswerLost, match="broke off"):
        await get(egress, f"{ehr.url}/a")
    with pytest.raises(EhrAnswerLost, match="broke off"):
        await stream(egress, f"{ehr.url}/a")


async def test_what_is_not_http_is_a_lost_answer(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/a"] = b"SSH-2.0-OpenSSH\r\n\r\n"

    with pytest.raises(EhrAnswerLost):
        await get(egress, f"{ehr.url}/a")


async def test_a_refused_port_was_certainly_not_reached(egress: Egress) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"

        with pytest.raises(EhrUnreachable, match="no connection"):
            await get(egress, url)


async def test_an_unknown_host_was_certainly_not_reached(egress: Egress, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "canary")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)

    with pytest.raises(EhrUnreachable) as raised:
        await get(egress, "https://unknown.example/")

    assert raised.value.detail == "no connection (ConnectError)"


async def test_a_connection_that_is_never_made_is_not_mistaken_for_a_lost_answer(egress: Egress) -> None:
    """RF-05: the first makes a refresh safe to repeat, the second does not."""
    with full_port() as url, pytest.raises(EhrUnreachable):
        await get(egress, url, timeout=0.3)


async def test_token_requests_open_their_own_connection(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/a"] = reply("{}")

    for _ in range(3):
        await get(egress, f"{ehr.url}/a")

    assert ehr.connections == 3


async def test_fhir_requests_share_one_connection(egress: Egress, ehr: ScriptedServer) -> None:
    ehr.answers["/a"] = reply("{}")

    for _ in range(3):
        await stream(egress, f"{ehr.url}/a")

    assert ehr.connections == 1


async def test_a_body_streams_to_the_ehr(egress: Egress, ehr: ScriptedServer) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    ehr.answers["/a"] = reply("")

    async with egress.stream("PUT", f"{ehr.url}/a", headers={}, content=body(), timeout=5):
        pass

    assert ehr.requests[0].body == b"one two"


async def test_proxies_and_netrc_of_the_environment_are_not_used(
    ehr: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login canary password canary\n")
    netrc.chmod(0o600)
    ehr.answers["/a"] = reply("{}")
    async with scripted_server() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NETRC", str(netrc))
        egress = Egress(allow_loopback_http=True)
        try:
            await get(egress, f"{ehr.url}/a")
        finally:
            await egress.close()

    assert proxy.connections == 0
    assert "authorization" not in ehr.requests[0].headers


async def test_a_certificate_nobody_vouches_for_is_refused_before_anything_is_sent(
    egress: Egress, tmp_path: Path
) -> None:
    """TK-08."""
    context, _ = certificate_for("127.0.0.1", tmp_path)
    async with scripted_server({"/": reply("{}")}, tls=context) as server:
        with pytest.raises(EhrUnreachable):
            await get(egress, f"{server.url}/")

    assert server.requests == []


@pytest.mark.parametrize(("named", "reached"), [("127.0.0.1", True), ("127.0.0.2", False)])
async def test_a_certificate_is_good_for_its_own_host_only(tmp_path: Path, named: str, *, reached: bool) -> None:
    """TK-08."""
    context, trusting = certificate_for(named, tmp_path)
    egress = Egress(certificates=trusting, allow_private_hosts=["127.0.0.1"])
    try:
        async with scripted_server({"/": reply("{}")}, tls=context) as server:
            if reached:
                assert (await get(egress, f"{server.url}/")).body == b"{}"
            else:
                with pytest.raises(EhrUnreachable):
                    await get(egress, f"{server.url}/")
    finally:
        await egress.close()


@contextmanager
def full_port() -> Iterator[str]:
    """A port whose queue is full, so that a connection is neither made nor refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queued = [socket.socket() for _ in range(4)]
        for waiting in queued:
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            for waiting in queued:
                waiting.close()


def certificate_for(host: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context with a self-signed certificate, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([alternative_name(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = folder / "certificate.pem"
    path.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))


def alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


async def test_an_ehr_that_does_not_answer_fills_its_own_places_and_no_others(
    egress: Egress, ehr: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that found no place was certainly not sent (RF-08)."""
    monkeypatch.setattr("broker.egress.egress.MOST_CONNECTIONS", 3)
    ehr.answers["/token"] = silence
    async with scripted_server({"/token": reply("{}")}) as other:
        hanging = [asyncio.create_task(get(egress, f"{ehr.url}/token", timeout=30)) for _ in range(3)]
        await until(lambda: len(ehr.requests) == 3)

        with pytest.raises(EhrUnreachable, match="too many requests"):
            await get(egress, f"{ehr.url}/token", timeout=0.2)
        assert (await get(egress, f"{other.url}/token")).status == 200

        for one in hanging:
            one.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        ehr.answers["/token"] = reply("{}")
        assert (await get(egress, f"{ehr.url}/token")).status == 200
    assert len(ehr.requests) == 4
