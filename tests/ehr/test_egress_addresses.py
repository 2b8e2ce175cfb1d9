"""Which addresses are connected to: pure, then over the loopback interface."""

import asyncio
import ssl
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.egress import Egress
from broker.egress.addresses import Address, AllowedHosts, kind_of
from broker.egress.connecting import Lookups
from broker.errors import EhrMisbehaved, EhrUnreachable
from tests.ehr.server import ScriptedServer, reply, scripted_server
from tests.ehr.test_egress import certificate_for, get


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", None),
        ("172.15.255.255", None),
        ("172.32.0.0", None),
        ("100.63.255.255", None),
        ("100.128.0.0", None),
        ("169.253.255.255", None),
        ("2606:4700::1111", None),
        ("2a00:1450:4001::1", None),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("10.0.0.5", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "shared (RFC 6598)"),
        ("100.100.100.200", "metadata"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("169.254.169.254", "link-local"),
        ("168.63.129.16", "metadata"),
        ("192.0.0.192", "metadata"),
        ("192.0.0.193", "reserved"),
        ("192.0.2.1", "documentation"),
        ("198.18.0.1", "benchmarking"),
        ("192.88.99.1", "6to4 relay"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.250", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::10.0.0.5", "IPv4-compatible"),
        ("::8.8.8.8", "IPv4-compatible"),
        ("::169.254.169.254", "link-local"),
        ("::ffff:0:10.0.0.5", "IPv4-translated"),
        ("2001:470:1f0b::5efe:10.0.0.5", "ISATAP"),
        ("2001:470:1f0b::200:5efe:8.8.8.8", "ISATAP"),
        ("2001:470:1f0b::5efe:169.254.169.254", "link-local"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("2001:0:4136:e378:8000:63bf:5601:5601", "link-local"),
        ("::ffff:10.0.0.5", "private"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::ffff:8.8.8.8", None),
        ("64:ff9b::a00:5", "private"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b::808:808", None),
        ("64:ff9b:1::808:808", "NAT64"),
        ("64:ff9b:1::a9fe:a9fe", "link-local"),
        ("2002:a00:5::1", "6to4"),
        ("2002:808:808::1", "6to4"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"),
        ("2001:db8::1", "documentation"),
        ("3fff::1", "documentation"),
        ("fc00::1", "private"),
        ("fd00:ec2::254", "metadata"),
        ("fd00:ec2::253", "private"),
        ("fd20:ce::254", "metadata"),
        ("fd00:c1::a9fe:a9fe", "metadata"),
        ("fd00:42::42", "metadata"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fec0::1", "reserved"),
        ("ff02::1", "multicast"),
    ],
)
def test_an_address_is_public_or_is_called_what_it_is(address: str, kind: str | None) -> None:
    """(DS-15)"""
    assert kind_of(ip_address(address)) == kind


@given(st.ip_addresses(v=4))
def test_no_address_that_python_knows_as_special_is_taken_for_public(address: IPv4Address) -> None:
    """Ours says no less than the standard library's own table (DS-15)."""
    special = not address.is_global or address.is_multicast or address.is_reserved or address.is_link_local

    assert kind_of(address) is not None or not special


@given(st.ip_addresses(v=6))
def test_no_version_6_address_beyond_global_unicast_is_taken_for_public(address: IPv6Address) -> None:
    inside = address.is_global and not address.is_multicast and int(address) >> 125 == 1
    carries = address.ipv4_mapped is not None or int(address) >> 32 == 0x64FF9B << 64

    assert kind_of(address) is not None or inside or carries


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_the_same_however_it_is_wrapped(address: IPv4Address) -> None:
    """IPv4-mapped and NAT64 forms hide nothing (DS-15)."""
    mapped = IPv6Address((0xFFFF << 32) | int(address))
    translated = IPv6Address((0x64FF9B << 96) | int(address))

    assert kind_of(mapped) == kind_of(translated) == kind_of(address)


@pytest.mark.parametrize(
    ("hosts", "host", "address", "allowed"),
    [
        ((), "ehr.example", "8.8.8.8", True),
        ((), "ehr.example", "10.0.0.5", False),
        (("fhir.hospital.internal",), "fhir.hospital.internal", "10.0.0.5", True),
        (("fhir.hospital.internal",), "FHIR.Hospital.Internal.", "10.0.0.5", True),
        (("fhir.hospital.internal",), "fhir.hospital.internal", "fd12::1", True),
        (("fhir.hospital.internal",), "hospital.internal", "10.0.0.5", False),
        (("fhir.hospital.internal",), "evil.fhir.hospital.internal", "10.0.0.5", False),
        (("fhir.hospital.internal",), "fhir.hospital.internal", "169.254.169.254", False),
        (("fhir.hospital.internal",), "fhir.hospital.internal", "168.63.129.16", False),
        (("fhir.hospital.internal",), "fhir.hospital.internal", "100.100.100.200", False),
        (("fhir.hospital.internal",), "fhir.hospital.internal", "100.100.100.201", True),
        (("fhir.hospital.internal",), "fhir.hospital.internal", "fd00:ec2::254", False),
        (("fhir.hospital.internal",), "fhir.hospital.internal", "64:ff9b:1::a00:5", True),
        (("fhir.hospital.internal",), "fhir.hospital.internal", "64:ff9b:1::a9fe:a9fe", False),
        (("fhir.hospital.internal",), "fhir.hospital.internal", "0.0.0.0", False),
        (("fhir.hospital.internal",), "fhir.hospital.internal", "224.0.0.1", False),
        (("10.0.0.5",), "10.0.0.5", "10.0.0.5", True),
        (("10.0.0.5",), "fhir.hospital.internal", "10.0.0.5", True),
        (("10.0.0.5",), "10.0.0.6", "10.0.0.6", False),
        (("169.254.169.254",), "169.254.169.254", "169.254.169.254", False),
        ((), "localhost", "127.0.0.1", False),
        ((), "127.0.0.1", "127.0.0.1", False),
    ],
)
def test_what_the_operator_named_may_be_private_and_nothing_else(
    hosts: tuple[str, ...], host: str, address: str, *, allowed: bool
) -> None:
    """Clouds hand out credentials at link-local addresses, so no name opens those (DS-15)."""
    assert (AllowedHosts.of(hosts).refusal(host, ip_address(address)) is None) == allowed


@pytest.mark.parametrize(
    ("host", "address", "allowed"),
    [
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("localhost", "10.0.0.5", False),
        ("ehr.example", "127.0.0.1", False),
        ("127.0.0.2", "127.0.0.2", False),
    ],
)
def test_a_sandbox_on_this_machine_is_reached_by_the_names_of_loopback_only(
    host: str, address: str, *, allowed: bool
) -> None:
    assert (AllowedHosts.of((), loopback=True).refusal(host, ip_address(address)) is None) == allowed


class Resolver:
    """Gives each answer once, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, _port: int) -> Sequence[Address]:
        self.asked.append(host)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [ip_address(address) for address in answer]


def address_of(server: ScriptedServer, host: str) -> str:
    return server.url.replace("127.0.0.1", host)


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["::ffff:127.0.0.1"], ["169.254.169.254"]],
)
async def test_a_name_with_a_private_address_is_not_connected_to(addresses: list[str], tmp_path: Path) -> None:
    """One such address among public ones is enough (DS-15)."""
    context, trusting = certificate_for("127.0.0.1", tmp_path)
    egress = Egress(certificates=trusting, resolve=Resolver(addresses))
    try:
        async with scripted_server({"/": reply("{}")}, tls=context) as server:
            with pytest.raises(EhrMisbehaved, match=r"a host has a \S+ address.* \(DS-15\)"):
                await get(egress, f"{address_of(server, 'ehr.example')}/")
            with pytest.raises(EhrMisbehaved, match="DS-15"):
                async with egress.stream("GET", address_of(server, "ehr.example"), headers={}, timeout=5):
                    raise AssertionError("connected")
    finally:
        await egress.close()

    assert server.connections == 0


async def test_the_connection_goes_to_the_address_that_was_checked(tmp_path: Path) -> None:
    """The name is resolved once for it, and one that changes its mind afterwards gains nothing (DS-15)."""
    context, trusting = certificate_for("ehr.example", tmp_path)
    resolver = Resolver(["127.0.0.1"], ["169.254.169.254"])
    egress = Egress(certificates=trusting, allow_private_hosts=["ehr.example"], resolve=resolver)
    try:
        async with scripted_server({"/": reply("{}")}, tls=context) as server:
            assert (await get(egress, f"{address_of(server, 'ehr.example')}/")).status == 200
            assert resolver.asked == ["ehr.example"]
            with pytest.raises(EhrMisbehaved, match="link-local"):
                await get(egress, f"{address_of(server, 'ehr.example')}/")
    finally:
        await egress.close()

    assert server.connections == 1


async def test_a_connection_that_is_kept_is_not_resolved_again(tmp_path: Path) -> None:
    context, trusting = certificate_for("ehr.example", tmp_path)
    resolver = Resolver(["127.0.0.1"])
    egress = Egress(certificates=trusting, allow_private_hosts=["ehr.example"], resolve=resolver)
    try:
        async with scripted_server({"/": reply("{}")}, tls=context) as server:
            for _ in range(3):
                async with egress.stream("GET", f"{address_of(server, 'ehr.example')}/", headers={}, timeout=5) as it:
                    assert [chunk async for chunk in it.chunks] == [b"{}"]
    finally:
        await egress.close()

    assert (resolver.asked, server.connections) == (["ehr.example"], 1)


async def test_tls_goes_on_to_check_the_name(tmp_path: Path) -> None:
    """The address is known, and its certificate still has to be the name's (TK-08, DS-15)."""
    names: list[str | None] = []
    context, trusting = certificate_for("ehr.example", tmp_path)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    egress = Egress(
        certificates=trusting, allow_private_hosts=["ehr.example", "other.example"], resolve=Resolver(["127.0.0.1"])
    )
    try:
        async with scripted_server({"/": reply("{}")}, tls=context) as server:
            assert (await get(egress, f"{address_of(server, 'ehr.example')}/")).status == 200
            with pytest.raises(EhrUnreachable):
                await get(egress, f"{address_of(server, 'other.example')}/")
    finally:
        await egress.close()

    assert names == ["ehr.example", "other.example"]


async def test_the_next_address_is_tried_where_the_first_does_not_answer(tmp_path: Path) -> None:
    context, trusting = certificate_for("ehr.example", tmp_path)
    resolver = Resolver(["127.0.0.3", "127.0.0.1"])
    egress = Egress(certificates=trusting, allow_private_hosts=["ehr.example"], resolve=resolver)
    try:
        async with scripted_server({"/": reply("{}")}, tls=context) as server:
            assert (await get(egress, f"{address_of(server, 'ehr.example')}/")).status == 200
    finally:
        await egress.close()


@pytest.mark.parametrize("answer", [[], OSError(), TimeoutError()])
async def test_a_name_without_an_address_was_certainly_not_reached(answer: list[str] | OSError) -> None:
    """(RF-05)"""

    async def resolve(_host: str, _port: int) -> Sequence[Address]:
        if isinstance(answer, OSError):
            raise answer
        return []

    egress = Egress(resolve=resolve)
    try:
        with pytest.raises(EhrUnreachable, match="no connection"):
            await get(egress, "https://ehr.example/")
    finally:
        await egress.close()


async def test_a_resolver_that_does_not_answer_is_waited_for_as_long_as_a_connection() -> None:
    async def resolve(_host: str, _port: int) -> Sequence[Address]:
        await asyncio.Event().wait()
        return []

    egress = Egress(resolve=resolve)
    try:
        with pytest.raises(EhrUnreachable, match="ConnectTimeout"):
            await get(egress, "https://ehr.example/", timeout=0.2)
    finally:
        await egress.close()


@pytest.mark.parametrize(
    "url",
    ["https://127.1/", "https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/", "https://[::ffff:7f00:1]/"],
)
async def test_other_ways_to_write_an_address_lead_to_the_same_refusal(url: str) -> None:
    """The system's own resolver reads them (DS-15)."""
    egress = Egress()
    try:
        with pytest.raises(EhrMisbehaved, match="DS-15"):
            await get(egress, url)
    finally:
        await egress.close()


async def test_https_on_loopback_is_open_to_a_sandbox_that_is_allowed(tmp_path: Path) -> None:
    context, trusting = certificate_for("127.0.0.1", tmp_path)
    async with scripted_server({"/": reply("{}")}, tls=context) as server:
        assert await status(server.url, trusting, allow_loopback_http=True) == 200
        assert await status(server.url, trusting, allow_private_hosts=["127.0.0.1"]) == 200
        with pytest.raises(EhrMisbehaved, match="loopback"):
            await status(server.url, trusting)


async def status(
    url: str, trusting: ssl.SSLContext, *, allow_loopback_http: bool = False, allow_private_hosts: Sequence[str] = ()
) -> int:
    egress = Egress(
        certificates=trusting, allow_loopback_http=allow_loopback_http, allow_private_hosts=allow_private_hosts
    )
    try:
        return (await get(egress, f"{url}/")).status
    finally:
        await egress.close()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b"])
async def test_a_host_that_is_no_name_is_not_looked_up(egress: Egress, host: str) -> None:
    """(DS-15)"""
    with pytest.raises(EhrMisbehaved, match="not a name"):
        await get(egress, f"https://{host}/")


class Resolvers:
    """Of two names, `dead.example` is not answered until told so; counts the lookups."""

    def __init__(self, *, found: bool = True) -> None:
        self.answered = asyncio.Event()
        self.asked: list[str] = []
        self._found = found

    async def __call__(self, host: str, _port: int) -> Sequence[Address]:
        self.asked.append(host)
        if host == "dead.example":
            await self.answered.wait()
        if not self._found:
            raise OSError
        return [ip_address("127.0.0.1")]


async def test_a_name_that_is_not_answered_is_asked_for_once_at_a_time_even_when_nobody_waits() -> None:
    """Resolvers have few threads, and no way to call a lookup off: one name must not take them all."""
    resolver = Resolvers()
    lookups = Lookups(resolver)
    for _ in range(3):
        waiting = [asyncio.create_task(lookups.resolve("dead.example", 443)) for _ in range(12)]
        await asyncio.sleep(0)
        for waiter in waiting:
            waiter.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    assert await lookups.resolve("alive.example", 443) == [ip_address("127.0.0.1")]
    assert resolver.asked == ["dead.example", "alive.example"]

    late = asyncio.create_task(lookups.resolve("dead.example", 443))
    await asyncio.sleep(0)
    resolver.answered.set()
    assert await late == [ip_address("127.0.0.1")]
    assert resolver.asked == ["dead.example", "alive.example"]


async def test_a_name_that_was_not_found_is_not_asked_for_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolvers(found=False)
    lookups, loop = Lookups(resolver), asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)

    for later, asked in ((0.0, 1), (1.9, 1), (2.0, 2)):
        monkeypatch.setattr(loop, "time", lambda later=later: now + later)
        with pytest.raises(OSError):  # noqa: PT011  # it has no text
            await lookups.resolve("gone.example", 443)
        assert len(resolver.asked) == asked
