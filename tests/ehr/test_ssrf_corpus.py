"""What the broker is talked into connecting to: nothing but public addresses, whoever says so (DS-15).

Every address of this machine that may be reached listens, and the interpreter tells what it connects to, so "refused"
means that no connection arrived and none was tried. Each case goes out by each way that there is.
"""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from broker.egress import Egress
from broker.ehr.documents import find_endpoints, find_openid_configuration, require_callable
from broker.ehr.endpoints import URL_MEMBERS, parse_smart_configuration
from broker.ehr.fhir_server import FhirServer
from broker.ehr.issuer_keys import IssuerKeys
from broker.errors import EhrError, EhrMisbehaved, EhrUnreachable
from broker.secret import Secret
from tests.ehr.documents import DOCUMENT
from tests.ehr.known import proofs, site
from tests.ehr.server import ScriptedServer, reply, scripted_server
from tests.ehr.watched import Names, Watched, watched_machine

Way = Callable[[Egress, str], Awaitable[object]]


def way_out(names: Names, **allowed: Any) -> Egress:
    """An egress that trusts no certificate: loading the system's for each case would take longer than all else."""
    return Egress(certificates=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), resolve=names, **allowed)


async def fetched(egress: Egress, url: str) -> object:
    return await egress.fetch("GET", url, headers={"authorization": "Bearer canary"}, timeout=2)


async def streamed(egress: Egress, url: str) -> object:
    async with egress.stream("GET", url, headers={"authorization": "Bearer canary"}, timeout=2) as answer:
        return answer.status


async def sent(egress: Egress, url: str) -> object:
    """As FHIR requests go out, which do not take the URL apart each time."""
    answer = await egress.send("GET", url, "", headers={"authorization": "Bearer canary"}, content=None, timeout=2)
    answer.close()
    return answer.status


async def shaken_hands(egress: Egress, url: str) -> object:
    return await egress.handshake(url, timeout=2)


WAYS = pytest.mark.parametrize(
    "way", [fetched, streamed, sent, shaken_hands], ids=["fetch", "stream", "send", "handshake"]
)


@pytest.fixture
async def machine() -> AsyncIterator[Watched]:
    async with watched_machine() as machine:
        yield machine


HTTPS, TWICE, UNUSUAL = "not https", "more than one way", "unusual form"
BAD, USER, UNREADABLE = "a blank, backslash", "holds a user name", "cannot be read"
LOOPBACK, PRIVATE, LINK, META, NOWHERE = "a loopback", "a private", "a link-local", "a metadata", "an? unspecified"

URLS = [
    # addresses as they are
    ("https://127.0.0.1:{port}/", LOOPBACK),
    ("https://127.0.0.2:{port}/", LOOPBACK),
    ("https://127.255.255.254:{port}/", LOOPBACK),
    ("https://[::1]:{port}/", LOOPBACK),
    ("https://0.0.0.0:{port}/", NOWHERE),
    ("https://[::]:{port}/", NOWHERE),
    ("https://10.0.0.5/", PRIVATE),
    ("https://172.16.0.1/", PRIVATE),
    ("https://192.168.1.1/", PRIVATE),
    ("https://100.64.0.1/", "a shared"),
    ("https://169.254.169.254/latest/meta-data/", LINK),
    ("https://169.254.170.2/v2/credentials/", LINK),
    ("https://[fe80::1]/", LINK),
    ("https://[fc00::1]/", PRIVATE),
    ("https://[fec0::1]/", "a reserved"),
    ("https://100.100.100.200/latest/meta-data/", META),
    ("https://168.63.129.16/machine", META),
    ("https://192.0.0.192/opc/v2/", META),
    ("https://[fd00:ec2::254]/latest/", META),
    ("https://[fd20:ce::254]/computeMetadata/v1/", META),
    ("https://224.0.0.1/", "a multicast"),
    ("https://255.255.255.255/", "a reserved"),
    ("https://[ff02::1]/", "a multicast"),
    # IPv4 addresses inside of IPv6 ones
    ("https://[::ffff:127.0.0.1]:{port}/", LOOPBACK),
    ("https://[::ffff:7f00:1]:{port}/", LOOPBACK),
    ("https://[0:0:0:0:0:ffff:7f00:0001]:{port}/", LOOPBACK),
    ("https://[::127.0.0.1]:{port}/", "IPv4-compatible"),
    ("https://[::ffff:0:127.0.0.1]:{port}/", "IPv4-translated"),
    ("https://[64:ff9b::127.0.0.1]:{port}/", LOOPBACK),
    ("https://[64:ff9b::a9fe:a9fe]/", LINK),
    ("https://[64:ff9b:1::a00:5]/", "a NAT64"),
    ("https://[2002:7f00:1::]:{port}/", "a 6to4"),
    ("https://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "a Teredo"),
    ("https://[2001:470:1f0b::5efe:10.0.0.5]/", "an? ISATAP"),
    ("https://[2001:470:1f0b::200:5efe:7f00:1]/", "an? ISATAP"),
    # zones
    ("https://[fe80::1%25lo]:{port}/", TWICE),
    ("https://[fe80::1%lo]:{port}/", TWICE),
    ("https://[::1%25lo]:{port}/", TWICE),
    # other ways to write an address
    ("https://127.1:{port}/", UNUSUAL),
    ("https://127.0.1:{port}/", UNUSUAL),
    ("https://2130706433:{port}/", UNUSUAL),
    ("https://0x7f000001:{port}/", UNUSUAL),
    ("https://0x7f.0.0.1:{port}/", UNUSUAL),
    ("https://0X7F.0X0.0X0.0X1:{port}/", UNUSUAL),
    ("https://0177.0.0.1:{port}/", UNUSUAL),
    ("https://017700000001:{port}/", UNUSUAL),
    ("https://127.0.0.01:{port}/", UNUSUAL),
    ("https://127.0.0.1.:{port}/", UNUSUAL),
    ("https://0:{port}/", UNUSUAL),
    ("https://256.256.256.256/", UNUSUAL),
    ("https://127.0.0.1.1:{port}/", UNUSUAL),
    ("https://evil.127.0.0.1:{port}/", UNUSUAL),
    ("https://0x:{port}/", UNUSUAL),
    # hosts that are read differently
    ("https://%31%32%37.0.0.1:{port}/", TWICE),
    ("https://127%2e0%2e0%2e1:{port}/", TWICE),
    ("https://localhost%00.evil.example:{port}/", TWICE),
    ("https://①②⑦.0.0.1:{port}/", BAD),
    ("https://127。0。0。1:{port}/", BAD),
    ("https://ｌｏｃａｌｈｏｓｔ:{port}/", BAD),
    ("https://lоcalhost:{port}/", BAD),
    ("https://evil.example\\@127.0.0.1:{port}/", BAD),
    ("https://127.0.0.1:{port}\\.evil.example/", BAD),
    ("https:\\\\127.0.0.1:{port}/", BAD),
    ("https://evil.example#@127.0.0.1:{port}/", BAD),
    ("https://127.0.0.1:{port}#.evil.example/", BAD),
    ("https://ehr.example/#/metadata", BAD),
    ("https://local\thost:{port}/", BAD),
    ("https://127.0.0.1\n:{port}/", BAD),
    ("\thttps://127.0.0.1:{port}/", BAD),
    (" https://127.0.0.1:{port}/", BAD),
    ("https://127.0.0.1:{port}/ ", BAD),
    ("https://ehr.example/\r\nHost: 127.0.0.1", BAD),
    ("https://ehr.example/\x00", BAD),
    ("https://ehr.example@127.0.0.1:{port}/", USER),
    ("https://user:canary@127.0.0.1:{port}/", USER),
    ("https://127.0.0.1:{port}@ehr.example/", USER),
    ("https://@127.0.0.1:{port}/", USER),
    ("https://ehr.example:443@127.0.0.1:{port}@ehr.example/", USER),
    ("https://[::1", UNREADABLE),
    ("https://[::1]evil.example:{port}/", TWICE + "|" + UNREADABLE),
    ("https://evil[::1]:{port}/", TWICE + "|" + UNREADABLE),
    ("https://[[::1]]:{port}/", TWICE + "|" + UNREADABLE),
    ("https://[127.0.0.1]:{port}/", TWICE + "|" + UNREADABLE + "|" + LOOPBACK),
    ("https://localhost,evil.example:{port}/", TWICE),
    ("https://localhost;.evil.example:{port}/", TWICE),
    ("https://*.evil.example:{port}/", TWICE),
    ("https://a..b:{port}/", "not a name"),
    ("https://.localhost:{port}/", "not a name"),
    ("https://localhost..:{port}/", "not a name"),
    # ports
    ("https://ehr.example:0/", TWICE),
    ("https://ehr.example:65536/", UNREADABLE),
    ("https://ehr.example:443:{port}/", UNREADABLE),
    ("https://ehr.example:+443/", UNREADABLE),
    ("https://ehr.example:/", TWICE),
    ("https://ehr.example:４４３/", BAD),
    # other schemes, and none
    ("http://127.0.0.1:{port}/", HTTPS),
    ("http://localhost:{port}/", HTTPS),
    ("http://ehr.example/", HTTPS),
    ("HTTP://ehr.example/", HTTPS),
    ("ftp://127.0.0.1:{port}/", HTTPS),
    ("file:///etc/passwd", HTTPS),
    ("gopher://127.0.0.1:{port}/_", HTTPS),
    ("unix:///run/redis.sock", HTTPS),
    ("data:application/json,{{}}", HTTPS),
    ("//127.0.0.1:{port}/", HTTPS),
    ("/relative", HTTPS),
    ("https:///127.0.0.1:{port}/", HTTPS),
    ("https:127.0.0.1:{port}/", HTTPS),
    ("", BAD),
]  # fmt: skip


@WAYS
@pytest.mark.parametrize(("url", "why"), URLS, ids=[f"{number:03d}" for number in range(len(URLS))])
async def test_a_url_that_leads_inside_or_can_be_read_in_two_ways_is_refused_before_a_lookup(
    machine: Watched, url: str, why: str, way: Way
) -> None:
    """(DS-15, TK-06, TK-08)"""
    names = Names({"ehr.example": [["127.0.0.1"]], "localhost": [["127.0.0.1"]]})
    egress = way_out(names)
    try:
        with pytest.raises(EhrMisbehaved, match=why) as raised:
            await way(egress, url.format(port=machine.port))
    finally:
        await egress.close()

    assert "canary" not in raised.value.detail
    assert (machine.accepted, machine.tried, names.asked) == ([], [], [])


NAMES = [
    ("localhost", ["127.0.0.1"], LOOPBACK),
    ("localhost", ["::1"], LOOPBACK),
    ("LOCALHOST.", ["127.0.0.1"], LOOPBACK),
    ("anything.localhost", ["127.0.0.1"], LOOPBACK),
    ("localhost.localdomain", ["127.0.0.1"], LOOPBACK),
    ("ip6-localhost", ["::1"], LOOPBACK),
    ("localtest.me", ["127.0.0.1"], LOOPBACK),
    ("127.0.0.1.nip.io", ["127.0.0.1"], LOOPBACK),
    ("xn--lclhst-xoa2d.example", ["127.0.0.1"], LOOPBACK),
    ("other.example", ["127.0.0.2"], LOOPBACK),
    ("mapped.example", ["::ffff:127.0.0.1"], LOOPBACK),
    ("nat64.example", ["64:ff9b::7f00:1"], LOOPBACK),
    ("compat.example", ["::127.0.0.1"], "IPv4-compatible"),
    ("translated.example", ["::ffff:0:127.0.0.1"], "IPv4-translated"),
    ("own-nat64.example", ["64:ff9b:1::7f00:1"], "a NAT64"),
    ("6to4.example", ["2002:7f00:1::1"], "a 6to4"),
    ("teredo.example", ["2001:0:4136:e378:8000:63bf:80ff:fffe"], "a Teredo"),
    ("isatap.example", ["2001:470:1f0b::5efe:7f00:1"], "an? ISATAP"),
    ("zone.example", ["fe80::1%lo"], LINK),
    ("zero.example", ["0.0.0.0"], NOWHERE),
    ("zero6.example", ["::"], NOWHERE),
    ("this-network.example", ["0.1.2.3"], NOWHERE),
    ("metadata.google.internal", ["169.254.169.254"], LINK),
    ("metadata", ["169.254.169.254"], LINK),
    ("metadata.google.internal", ["fd20:ce::254"], META),
    ("instance-data.ec2.internal", ["169.254.169.254"], LINK),
    ("instance-data.ec2.internal", ["fd00:ec2::254"], META),
    ("metadata.platformequinix.com", ["192.80.8.124", "10.0.0.1"], PRIVATE),
    ("alibaba.example", ["100.100.100.200"], META),
    ("azure.example", ["168.63.129.16"], META),
    ("kubernetes.default.svc", ["10.96.0.1"], PRIVATE),
    ("redis", ["10.0.0.9"], PRIVATE),
    ("ula.example", ["fd12:3456::1"], PRIVATE),
    ("carrier.example", ["100.64.0.1"], "a shared"),
    ("first-public.example", ["8.8.8.8", "127.0.0.1"], LOOPBACK),
    ("first-private.example", ["127.0.0.1", "8.8.8.8"], LOOPBACK),
    ("two-families.example", ["2606:4700::1111", "127.0.0.1"], LOOPBACK),
    ("last-of-many.example", [*(f"8.8.8.{n}" for n in range(1, 9)), "127.0.0.1"], LOOPBACK),
    ("broadcast.example", ["255.255.255.255"], "a reserved"),
    ("documentation.example", ["192.0.2.1"], "a documentation"),
    ("benchmark.example", ["198.18.0.1"], "a benchmarking"),
]


@WAYS
@pytest.mark.parametrize(("name", "answer", "why"), NAMES, ids=[f"{n:03d} {row[0]}" for n, row in enumerate(NAMES)])
async def test_a_name_that_has_an_address_inside_is_not_connected_to(
    machine: Watched, name: str, answer: Sequence[str], why: str, way: Way
) -> None:
    """(DS-15): one such address is enough, whatever stands beside it."""
    names = Names({name.lower(): [answer]})
    egress = way_out(names)
    try:
        with pytest.raises(EhrMisbehaved, match=why):
            await way(egress, f"https://{name}:{machine.port}/")
    finally:
        await egress.close()

    assert (machine.accepted, machine.tried) == ([], [])


@WAYS
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("169.254.169.254", LINK),
        ("::ffff:169.254.169.254", LINK),
        ("64:ff9b::a9fe:a9fe", LINK),
        ("64:ff9b:1::a9fe:a9fe", LINK),
        ("2002:a9fe:a9fe::1", LINK),
        ("100.100.100.200", META),
        ("168.63.129.16", META),
        ("fd00:ec2::254", META),
        ("0.0.0.0", NOWHERE),
        ("224.0.0.1", "a multicast"),
    ],
)
async def test_no_name_that_the_operator_allows_opens_what_clouds_hand_out_credentials_at(
    machine: Watched, address: str, why: str, way: Way
) -> None:
    """(DS-15): `allow_private_hosts` names a host, and its DNS may be somebody else's."""
    egress = way_out(Names({"ehr.internal": [[address]]}), allow_private_hosts=["ehr.internal"])
    try:
        with pytest.raises(EhrMisbehaved, match=why):
            await way(egress, f"https://ehr.internal:{machine.port}/")
    finally:
        await egress.close()

    assert (machine.accepted, machine.tried) == ([], [])


SANDBOX_URLS = [
    "http://127.0.0.2:{port}/", "http://127.1:{port}/", "http://0.0.0.0:{port}/", "http://[::]:{port}/",
    "http://localhost.:{port}/", "http://127.0.0.1.:{port}/", "http://2130706433:{port}/", "http://0x7f.1:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/", "http://a.localhost:{port}/", "http://ehr.example:{port}/",
    "http://localhost.evil.example:{port}/", "http://127.0.0.1%2eevil.example:{port}/",
    "http://localhost\\.evil.example:{port}/", "http://10.0.0.5/", "http://169.254.169.254/", "https://127.0.0.2:{port}/",
    "https://ehr.example:{port}/", "https://[::ffff:127.0.0.1]:{port}/",
]  # fmt: skip


@pytest.mark.parametrize("way", [fetched, streamed, sent], ids=["fetch", "stream", "send"])
@pytest.mark.parametrize("url", SANDBOX_URLS)
async def test_a_sandbox_that_is_allowed_on_loopback_opens_its_three_names_and_no_others(
    machine: Watched, url: str, way: Way
) -> None:
    """(DS-15, TK-08)"""
    names = Names({name: [["127.0.0.1"]] for name in ("ehr.example", "localhost.", "a.localhost")})
    egress = way_out(names, allow_loopback_http=True)
    try:
        with pytest.raises(EhrMisbehaved):
            await way(egress, url.format(port=machine.port))
    finally:
        await egress.close()

    assert (machine.accepted, machine.tried) == ([], [])


@WAYS
async def test_what_is_allowed_does_arrive_at_the_same_listener(machine: Watched, way: Way) -> None:
    """So that its silence, in all of the above, means something."""
    egress = way_out(Names({"ehr.internal": [["127.0.0.1"]]}), allow_private_hosts=["ehr.internal"])
    try:
        with pytest.raises(EhrError):  # it does not speak TLS
            await way(egress, f"https://ehr.internal:{machine.port}/")
    finally:
        await egress.close()

    assert machine.accepted == ["127.0.0.1"]


@WAYS
async def test_a_name_that_changes_its_mind_gains_nothing(machine: Watched, way: Way) -> None:
    """(DS-15): each connection goes to the answer that was checked for it; the second one names loopback."""
    names = Names({"rebinding.example": [["192.0.2.77"], ["127.0.0.1"]], "public.example": [["127.0.0.1"]]})
    egress = way_out(names, allow_private_hosts=["192.0.2.77"])
    try:
        with pytest.raises(EhrUnreachable):  # checked, allowed, and nobody is there
            await way(egress, f"https://rebinding.example:{machine.port}/")
        with pytest.raises(EhrMisbehaved, match=LOOPBACK):
            await way(egress, f"https://rebinding.example:{machine.port}/")
    finally:
        await egress.close()

    assert machine.accepted == []
    assert {address[0] for address in machine.tried} <= {"192.0.2.77"}
    assert names.asked == ["rebinding.example", "rebinding.example"]


# Where a URL may come from


INSIDE = [
    "https://127.0.0.1:{port}/x",
    "https://[::1]:{port}/x",
    "https://169.254.169.254/x",
    "https://0x7f.1:{port}/x",
    "https://inside.example:{port}/x",
    "http://127.0.0.2:{port}/x",
    "https://ehr.example@127.0.0.1:{port}/x",
]
INSIDE_NAMES = {"inside.example": [["127.0.0.1"]]}
EACH_INSIDE = pytest.mark.parametrize("inside", INSIDE)


@pytest.fixture
async def sandboxed() -> AsyncIterator[Egress]:
    """An egress that reaches the scripted EHR on 127.0.0.1, by plain http, and nothing else inside."""
    egress = way_out(Names(INSIDE_NAMES), allow_loopback_http=True)
    yield egress
    await egress.close()


@pytest.fixture
async def strict() -> AsyncIterator[Egress]:
    egress = way_out(Names(INSIDE_NAMES))
    yield egress
    await egress.close()


@EACH_INSIDE
async def test_no_token_goes_to_a_fhir_base_inside(strict: Egress, machine: Watched, inside: str) -> None:
    """(DS-15, PX-03)"""
    with pytest.raises(EhrMisbehaved):
        await FhirServer(strict, proofs()).send(
            fhir_base=inside.format(port=machine.port),
            token=Secret("canary"),
            method="GET",
            path="Patient/1",
            query="",
            headers={},
            content=None,
            timeout=2,
        )

    assert (machine.accepted, machine.tried) == ([], [])


@EACH_INSIDE
async def test_discovery_of_a_fhir_base_inside_asks_nobody(strict: Egress, machine: Watched, inside: str) -> None:
    """(DS-15)"""
    with pytest.raises(EhrMisbehaved):
        await find_endpoints(strict, site(inside.format(port=machine.port)))

    assert (machine.accepted, machine.tried) == ([], [])


@pytest.mark.parametrize("inside", [url for url in INSIDE if "inside.example" not in url])
@pytest.mark.parametrize("member", [member for member in URL_MEMBERS if member != "token_endpoint"])
def test_an_endpoint_inside_is_left_out_of_what_discovery_found(strict: Egress, member: str, inside: str) -> None:
    """(DS-15); one that only DNS leads inside is refused when it is called, as any name."""
    document: dict[str, Any] = {**DOCUMENT, member: inside.format(port=443)}

    found = require_callable(strict, parse_smart_configuration(document, "https://ehr.example/r4"))

    assert getattr(found, member) is None


@EACH_INSIDE
async def test_an_issuer_inside_is_not_asked(strict: Egress, machine: Watched, inside: str) -> None:
    """(DS-15, ID-02)"""
    with pytest.raises(EhrMisbehaved):
        await find_openid_configuration(strict, inside.format(port=machine.port), place="append")

    assert (machine.accepted, machine.tried) == ([], [])


@EACH_INSIDE
async def test_a_key_set_inside_is_not_fetched(strict: Egress, machine: Watched, inside: str) -> None:
    """(DS-15, ID-02)"""
    with pytest.raises(EhrMisbehaved):
        await IssuerKeys(strict, lambda: 0.0).find(inside.format(port=machine.port), None)

    assert (machine.accepted, machine.tried) == ([], [])


@pytest.mark.parametrize("status", ["302 Found", "307 Temporary"])
@pytest.mark.parametrize("way", [fetched, streamed, sent], ids=["fetch", "stream", "send"])
@EACH_INSIDE
async def test_a_redirect_leads_nowhere_whatever_it_says(
    sandboxed: Egress, machine: Watched, way: Way, status: str, inside: str
) -> None:
    """(PX-05, DS-15)"""
    location = inside.format(port=machine.port)
    async with scripted_server({"/a": reply("", f"Location: {location}", status=status)}) as ehr:
        await way(sandboxed, f"{ehr.url}/a")
        assert [request.target for request in ehr.requests] == ["/a"]

    assert machine.accepted == []
    assert {address[1] for address in machine.tried} <= {int(ehr.url.rpartition(":")[2])}


@pytest.mark.parametrize("header", ["Location", "Content-Location", "Refresh", "Link", "Alt-Svc", "Host"])
async def test_no_header_of_an_answer_makes_the_broker_connect(
    sandboxed: Egress, machine: Watched, header: str
) -> None:
    """(DS-15)"""
    said = {"Refresh": "0; url={}", "Link": "<{}>; rel=preload", "Alt-Svc": 'h2="{}"'}.get(header, "{}")
    line = f"{header}: {said.format(f'https://127.0.0.2:{machine.port}/')}"
    async with scripted_server({"/a": reply("{}", line)}) as ehr:
        for way in (fetched, streamed, fetched):
            await way(sandboxed, f"{ehr.url}/a")
        assert len(ehr.requests) == 3

    assert machine.accepted == []


async def test_no_environment_sends_a_request_elsewhere(monkeypatch: pytest.MonkeyPatch, machine: Watched) -> None:
    """(DS-15): a proxy would be asked by name, and the token would go where nobody looked."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.2:{machine.port}")
    monkeypatch.setenv("NO_PROXY", "")
    egress = way_out(Names({"ehr.example": [["192.0.2.77"]]}), allow_loopback_http=True)
    try:
        async with scripted_server({"/a": reply("{}")}) as ehr:
            for way in (fetched, streamed):
                await way(egress, f"{ehr.url}/a")
            assert len(ehr.requests) == 2
        for way in (fetched, streamed, shaken_hands):
            with pytest.raises(EhrMisbehaved, match="documentation"):
                await way(egress, "https://ehr.example/")
    finally:
        await egress.close()

    assert machine.accepted == []


async def test_a_document_that_names_inside_endpoints_is_read_and_none_of_them_is_called(
    sandboxed: Egress, machine: Watched, ehr: ScriptedServer
) -> None:
    """(DS-15): the whole of discovery, with an address inside in every member."""
    inside = f"https://127.0.0.2:{machine.port}/x"
    document = {
        **DOCUMENT,
        **dict.fromkeys(URL_MEMBERS, inside),
        "issuer": inside,
        "capabilities": ["sso-openid-connect"],
    }
    ehr.answers["/r4/.well-known/smart-configuration"] = reply(json.dumps(document))

    with pytest.raises(EhrMisbehaved, match="the token endpoint cannot be used"):
        require_callable(sandboxed, await find_endpoints(sandboxed, site(f"{ehr.url}/r4")))

    assert machine.accepted == []
