"""The way to Redis: which one, in what time, and what is said when it fails."""

import asyncio
import datetime as dt
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from broker.clock import system_clock
from broker.errors import ConfigurationError, StoreUnavailable
from broker.secret import Secret
from broker.store import pool
from broker.store.connection import Script, connect, resolve, store_errors
from broker.store.embedded import EmbeddedServer, running_url
from broker.store.facts import ServerFacts, server_facts

PASSWORD = "canary-password"

SLACK = 3.0
"""Seconds that a busy machine may add; a limit that does not work costs far more, or never ends."""


async def seconds_to_refuse(call: Callable[[], Awaitable[object]]) -> float:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable), store_errors():
        await call()
    return time.monotonic() - began


@asynccontextmanager
async def relay(
    valkey: EmbeddedServer, answer_passes: Callable[[bytes], bool], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A TCP port in front of the server, which hangs up instead of passing on the first answer it does not like."""
    path = unquote(valkey.url().reveal().partition("@")[2])

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[bytes], bool]) -> None:
        while (data := await reader.read(65536)) and passes(data):
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_unix_connection(path)
        there = asyncio.create_task(pump(reader, upstream_writer, lambda _: True))
        back = asyncio.create_task(pump(upstream_reader, writer, answer_passes))
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        there.cancel()
        back.cancel()
        upstream_writer.close()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


def tcp_url(
    valkey: EmbeddedServer, port: int, scheme: str = "redis", host: str = "127.0.0.1", query: str = ""
) -> Secret:
    password = valkey.url().reveal().partition("@")[0].removeprefix("unix://:")
    return Secret(f"{scheme}://:{password}@{host}:{port}/0{query}")


# Which Redis


def test_a_given_url_wins_over_a_running_server(server: EmbeddedServer, tmp_path: Path) -> None:
    given = Secret("redis://redis.example:6379/0")

    with resolve(given, state_dir=tmp_path, allow_embedded=True) as url:
        assert url == given


def test_a_running_server_is_joined_and_left_running(server: EmbeddedServer, tmp_path: Path) -> None:
    with resolve(None, state_dir=tmp_path, allow_embedded=True) as url:
        assert url == server.url()
    assert running_url(tmp_path) == server.url()


def test_a_server_is_started_for_the_demo_and_stopped_after_it(tmp_path: Path) -> None:
    with resolve(None, state_dir=tmp_path, allow_embedded=True) as url:
        assert running_url(tmp_path) == url
    assert running_url(tmp_path) is None


def test_production_without_a_url_is_refused_even_beside_a_running_server(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"BROKER_REDIS_URL .* is not set"),
        resolve(None, state_dir=tmp_path, allow_embedded=False),
    ):
        pytest.fail("there is no store to use")


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis.example",
        "redis://:pw@redis.example:6380",
        "redis://user:pw@redis.example:6380/3",
        "redis://[::1]:6379/?db=3",
        "rediss://:pw@redis.example:6380/0?ssl_ca_certs=/etc/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
        "unix://:pw@/run/redis.sock?db=2",
    ],
)
def test_a_sound_url_is_taken(url: str) -> None:
    assert connect(Secret(url)).connection_pool.max_connections == 64


@pytest.mark.parametrize(
    "url",
    [
        "",
        f"http://:{PASSWORD}@redis.example",
        f"redis://:{PASSWORD}@",
        f"redis://:{PASSWORD}@redis.example:{PASSWORD}",
        f"redis://:{PASSWORD}@redis.example:99999",
        f"redis://:{PASSWORD}/slash@redis.example",
        f"redis://:{PASSWORD}#hash@redis.example",
        f"redis://:{PASSWORD}?x=question@redis.example",
        f"redis://:{PASSWORD}@[redis.example",
        f"redis://:{PASSWORD}@redis.example/tokens",
        f"redis://:{PASSWORD}@redis.example/0?db=one",
        f"redis://redis.example/0?password={PASSWORD}",
        f"redis://:{PASSWORD}@redis.example/0?ssl_ca_certs=/ca.pem",
        f"redis://:{PASSWORD}@redis.example/0?decode_responses=1",
        f"redis://:{PASSWORD}@redis.example/0?socket_timeout=60",
        f"rediss://:{PASSWORD}@redis.example/0?ssl_cert_reqs=none",
        f"rediss://:{PASSWORD}@redis.example/0?ssl_cert_reqs=",
        f"rediss://:{PASSWORD}@redis.example/0?ssl_check_hostname=false",
        f"rediss://:{PASSWORD}@redis.example/0?ssl_exclude_verify_flags=[VERIFY_X509_STRICT]",
        f"unix://:{PASSWORD}@",
        f"unix://:{PASSWORD}@/run/redis.sock?ssl_ca_certs=/ca.pem",
    ],
)
def test_a_url_that_is_misread_or_weakens_the_connection_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        connect(Secret(url))

    assert "the Redis URL must read" in str(refusal.value)
    assert PASSWORD not in f"{refusal.value}{refusal.value!r}"


def test_the_password_is_in_no_representation() -> None:
    client = connect(Secret(f"redis://operator:{PASSWORD}@redis.example"))

    assert PASSWORD not in f"{client!r}{client}{client.connection_pool!r}"


# In what form


async def test_answers_are_bytes_and_maps_whatever_the_server(server: EmbeddedServer) -> None:
    async with connect(server.url()) as redis:
        await redis.hset("hash", mapping={"a": b"\xff"})
        await redis.zadd("scores", {"member": 1.5})

        assert await redis.hgetall("hash") == {b"a": b"\xff"}
        assert await redis.zrange("scores", 0, -1, withscores=True) == [[b"member", 1.5]]
        assert await redis.get("nothing") is None


async def test_the_server_can_tell_which_connections_are_ours(redis: Redis) -> None:
    assert await redis.client_getname() == "broker"


# In what time


async def test_a_frozen_server_is_refused_within_a_second(server: EmbeddedServer) -> None:
    async with connect(server.url(), max_connections=8) as redis, connect(server.url()) as fresh:
        await redis.set("key", "value")
        os.kill(server.process_id, signal.SIGSTOP)
        refusals = [seconds_to_refuse(lambda: redis.get("key")) for _ in range(100)]

        assert max(await asyncio.gather(*refusals, seconds_to_refuse(fresh.ping))) < 1 + SLACK

        os.kill(server.process_id, signal.SIGCONT)
        assert await redis.get("key") == b"value"


async def test_a_limit_that_passes_while_the_client_is_sending_still_counts(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = AbstractConnection._send_packed_command

    async def send_late(self: AbstractConnection, command: Iterable[bytes]) -> None:
        await send(self, command)
        time.sleep(0.06)  # noqa: ASYNC251 - a busy event loop is what this is about

    monkeypatch.setattr(pool, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr(AbstractConnection, "_send_packed_command", send_late)
    os.kill(server.process_id, signal.SIGSTOP)
    async with connect(server.url()) as redis:
        assert await seconds_to_refuse(redis.ping) < 1 + SLACK
    os.kill(server.process_id, signal.SIGCONT)


async def test_a_server_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    async with connect(Secret(f"unix://{tmp_path}/nothing.sock")) as redis:
        assert await seconds_to_refuse(redis.ping) < 0.5 + SLACK


async def test_a_call_waits_a_moment_for_a_connection_and_then_fails(
    valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "WAIT_SECONDS", 0.2)
    async with connect(valkey.url(), max_connections=1) as redis:
        await redis.ping()
        holding = asyncio.ensure_future(redis.blpop(["nothing"], timeout=0.05))
        await asyncio.sleep(0)
        assert await redis.ping()
        assert await holding is None

        holding = asyncio.ensure_future(redis.blpop(["nothing"], timeout=0.5))
        await asyncio.sleep(0)
        assert 0.15 < await seconds_to_refuse(redis.ping) < 0.5 + SLACK
        assert await holding is None
        assert await redis.ping()


@pytest.mark.parametrize("way", ["a Unix socket", "TCP"])
async def test_an_idle_connection_to_a_server_that_was_restarted_costs_no_error(
    program: Path, tmp_path: Path, way: str
) -> None:
    first = EmbeddedServer.start(tmp_path, server=program)
    async with relay(first, lambda _: True) as port:
        redis = connect(tcp_url(first, port) if way == "TCP" else first.url())
        await redis.set("key", "value")
        first.stop()

        with EmbeddedServer.start(tmp_path, server=program):
            for _ in range(20):  # until the event loop has heard of the closed socket
                await asyncio.sleep(0)
            async with redis:
                assert await redis.get("key") == b"value"


async def test_a_command_whose_answer_is_lost_is_not_sent_again(valkey: EmbeddedServer, redis: Redis) -> None:
    async with relay(valkey, lambda answer: answer != b":1\r\n") as port, connect(tcp_url(valkey, port)) as cut:
        with pytest.raises(StoreUnavailable, match=r"^ConnectionError$"), store_errors():
            await cut.incr("counter")
        with pytest.raises(StoreUnavailable, match=r"^ConnectionError$"):
            await Script("return redis.call('INCR', KEYS[1])")(cut, ["counter of the script"])

    assert await redis.mget("counter", "counter of the script") == [b"1", b"1"]


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for `localhost`, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(signed.public_bytes(Encoding.PEM) + private)
    return path


@pytest.mark.parametrize(
    ("host", "trusted", "accepted"),
    [("localhost", True, True), ("localhost", False, False), ("127.0.0.1", True, False)],
    ids=["our authority and name", "an unknown authority", "another name"],
)
async def test_tls_needs_a_known_authority_and_the_right_name(
    valkey: EmbeddedServer, certificate: Path, host: str, *, trusted: bool, accepted: bool
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    query = f"?ssl_ca_certs={certificate}" if trusted else ""
    async with (
        relay(valkey, lambda _: True, tls) as port,
        connect(tcp_url(valkey, port, "rediss", host, query)) as redis,
    ):
        if accepted:
            assert await redis.ping()
        else:
            await seconds_to_refuse(redis.ping)


# What is said when it fails


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (exceptions.ConnectionError(f"Error 111 connecting to {PASSWORD}"), "ConnectionError"),
        (exceptions.TimeoutError(f"Timeout reading from {PASSWORD}"), "TimeoutError"),
        (exceptions.AuthenticationError(PASSWORD), "AuthenticationError"),
        (exceptions.ResponseError(f"WRONGTYPE Operation {PASSWORD}"), "WRONGTYPE"),
        (exceptions.ResponseError(f"unknown command '{PASSWORD}'", status_code="ERR"), "ERR"),
        (exceptions.ResponseError(f"{PASSWORD} is not an integer"), "ResponseError"),
        (exceptions.ResponseError(""), "ResponseError"),
        (exceptions.NoPermissionError("this user has no permissions", status_code="NOPERM"), "NOPERM"),
        (exceptions.OutOfMemoryError("command not allowed", status_code="OOM"), "OOM"),
        (exceptions.DataError(f"Invalid input of type {PASSWORD}"), "DataError"),
        (TimeoutError(PASSWORD), "TimeoutError"),
        (ConnectionResetError(PASSWORD), "ConnectionResetError"),
    ],
)
def test_a_failure_of_the_store_is_named_in_one_word(error: Exception, detail: str) -> None:
    with pytest.raises(StoreUnavailable) as failure, store_errors():
        raise error

    assert failure.value.detail == detail
    assert failure.value.__suppress_context__


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError), store_errors():
        raise KeyError


async def test_a_wrong_password_is_a_store_failure_that_does_not_show_it(valkey: EmbeddedServer) -> None:
    path = valkey.url().reveal().partition("@")[2]
    async with connect(Secret(f"unix://:{PASSWORD}@{path}")) as redis:
        with pytest.raises(StoreUnavailable) as failure, store_errors():
            await redis.get("key")

    assert failure.value.detail in {"AuthenticationError", "ConnectionError"}


# Scripts


async def test_a_script_runs_on_a_server_that_has_never_seen_it(server: EmbeddedServer) -> None:
    script = Script("return {KEYS[1], ARGV[1], tonumber(ARGV[2]) + 1, false, redis.call('SET', KEYS[1], ARGV[1])}")
    async with connect(server.url()) as redis:
        for _ in range(2):
            assert await script(redis, ["key"], [b"\x00\xff", 41]) == [b"key", b"\x00\xff", 42, None, b"OK"]
        await redis.script_flush()
        assert await script(redis, ["key"], ["again", 0]) == [b"key", b"again", 1, None, b"OK"]


async def test_a_known_script_is_sent_by_its_hash_alone(redis: Redis) -> None:
    script = Script("return 'once'")
    await script(redis, [])
    before = (await redis.info("commandstats"))["cmdstat_eval"]["calls"]

    assert await script(redis, []) == b"once"

    assert (await redis.info("commandstats"))["cmdstat_eval"]["calls"] == before


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("return redis.error_reply('STALE lease')", "STALE"),
        ("return redis.call('LPUSH', 'text', 1)", "WRONGTYPE"),
        ("return nobody.knows()", "ERR"),
        ("this is not Lua", "ERR"),
    ],
)
async def test_a_script_that_fails_is_a_store_failure(redis: Redis, text: str, detail: str) -> None:
    await redis.set("text", "words")

    with pytest.raises(StoreUnavailable, match=f"^{detail}$"):
        await Script(text)(redis, [])


# What `broker check` asks


async def test_the_server_tells_its_product_version_policy_and_persistence(
    server: EmbeddedServer, program: Path
) -> None:
    async with connect(server.url()) as redis:
        facts = await server_facts(redis, system_clock)

    assert facts.version is not None
    assert facts.version.startswith("Redis 7." if program.name == "redis-server" else "Valkey ")
    assert (facts.maxmemory_policy, facts.aof_enabled) == ("noeviction", True)
    assert facts.clock_offset == pytest.approx(0, abs=0.5)


async def test_the_clock_offset_is_how_far_the_server_is_ahead(redis: Redis) -> None:
    facts = await server_facts(redis, lambda: system_clock() - 3600)

    assert facts.clock_offset == pytest.approx(3600, abs=0.5)


@pytest.mark.parametrize("error", [exceptions.NoPermissionError("no"), exceptions.ResponseError("unknown command")])
async def test_what_the_server_may_not_tell_is_none(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, error: exceptions.ResponseError
) -> None:
    async def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(redis, "execute_command", refuse)

    assert await server_facts(redis, system_clock) == ServerFacts(None, None, None, None)
