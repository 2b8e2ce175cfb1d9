"""TLS with each host by its own files: whose certificates are believed, what the broker shows (TK-08, OA-19)."""

import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.egress import ClientCertificate, Egress, HostTls
from broker.errors import EhrError, EhrUnreachable
from tests.ehr.certificates import self_signed
from tests.ehr.server import ScriptedServer, reply, scripted_server
from tests.ehr.test_egress import certificate_for
from tests.ehr.watched import Names

Way = Callable[[Egress, str], Awaitable[object]]
NAMES = {name: [["127.0.0.1"]] for name in ("ehr.example", "other.example")}


async def fetched(egress: Egress, url: str) -> object:
    return (await egress.fetch("GET", url, headers={}, timeout=5)).status


async def streamed(egress: Egress, url: str) -> object:
    async with egress.stream("GET", url, headers={}, timeout=5) as answer:
        return answer.status


async def shaken_hands(egress: Egress, url: str) -> object:
    return (await egress.handshake(url, timeout=5)).version


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


BOTH_WAYS = pytest.mark.parametrize("way", [fetched, streamed], ids=["fetch", "stream"])
ALL_WAYS = pytest.mark.parametrize("way", [fetched, streamed, shaken_hands], ids=["fetch", "stream", "handshake"])


@asynccontextmanager
async def way_out(hosts: Mapping[str, HostTls], **more: Any) -> AsyncIterator[Egress]:
    egress = Egress(allow_private_hosts=[*NAMES], resolve=Names(NAMES), hosts=hosts, **more)
    yield egress
    await egress.close()


@asynccontextmanager
async def serving(host: str, folder: Path, *, client_ca: Path | None = None) -> AsyncIterator[ScriptedServer]:
    """Serve `host` with a certificate that is its own authority, `folder/certificate.pem`."""
    context, _ = certificate_for(host, made(folder))
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    async with scripted_server({"/": reply("{}")}, tls=context) as server:
        server.url = server.url.replace("127.0.0.1", host)
        yield server


@ALL_WAYS
async def test_an_authority_of_one_host_is_believed_there_and_at_no_other(tmp_path: Path, way: Way) -> None:
    """(TK-08)"""
    async with serving("ehr.example", tmp_path / "a") as ehr, serving("other.example", tmp_path / "b") as other:
        both = tmp_path / "both.pem"
        both.write_bytes(b"".join((tmp_path / name / "certificate.pem").read_bytes() for name in "ab"))
        async with way_out({"EHR.example.": HostTls(both)}) as egress:
            assert await way(egress, f"{ehr.url}/") in {200, "TLSv1.3"}
            with pytest.raises(EhrError):
                await way(egress, f"{other.url}/")

    assert other.requests == []


@ALL_WAYS
async def test_where_a_host_has_an_authority_no_other_is_believed(tmp_path: Path, way: Way) -> None:
    """(TK-08): whoever could get a certificate for the name from any public authority gains nothing."""
    async with serving("ehr.example", tmp_path / "a") as ehr:
        certificate_for("ehr.example", tmp_path)  # another authority for the same name
        anybodys = ssl.create_default_context(cafile=str(tmp_path / "a" / "certificate.pem"))
        async with way_out({"ehr.example": HostTls(tmp_path / "certificate.pem")}, certificates=anybodys) as egress:
            with pytest.raises(EhrError):
                await way(egress, f"{ehr.url}/")

    assert ehr.requests == []


@BOTH_WAYS
async def test_an_authority_does_not_make_up_for_the_wrong_name(tmp_path: Path, way: Way) -> None:
    """(TK-08)"""
    async with serving("other.example", tmp_path) as server:
        server.url = server.url.replace("other", "ehr")
        async with way_out({"ehr.example": HostTls(tmp_path / "certificate.pem")}) as egress:
            with pytest.raises(EhrUnreachable):
                await way(egress, f"{server.url}/")

    assert server.requests == []


@BOTH_WAYS
async def test_a_client_certificate_is_shown_to_the_host_that_it_is_for(tmp_path: Path, way: Way) -> None:
    """(OA-19)"""
    own = self_signed(tmp_path)
    identity = ClientCertificate(own["certificate"], own["certificate_key"])
    async with (
        serving("ehr.example", tmp_path / "a", client_ca=own["certificate"]) as ehr,
        serving("other.example", tmp_path / "b", client_ca=own["certificate"]) as other,
    ):
        believed = {name: HostTls(tmp_path / n / "certificate.pem") for name, n in zip(NAMES, "ab", strict=True)}
        hosts = believed | {"ehr.example": HostTls(believed["ehr.example"].authorities, identity)}
        async with way_out(hosts) as egress:
            assert await way(egress, f"{ehr.url}/") == 200
            with pytest.raises(EhrError):
                await way(egress, f"{other.url}/")

    assert other.requests == []


async def test_a_request_that_brings_a_certificate_shows_that_one_and_believes_what_the_host_is_believed_by(
    tmp_path: Path,
) -> None:
    """(OA-19): a registration's own, at the token endpoint."""
    one, other = (self_signed(made(tmp_path / name), subject=f"CN={name}") for name in ("registration", "host"))
    shown = ClientCertificate(one["certificate"], one["certificate_key"])
    in_any_case = ClientCertificate(other["certificate"], other["certificate_key"])
    async with serving("ehr.example", tmp_path / "a", client_ca=one["certificate"]) as ehr:
        hosts = {"ehr.example": HostTls(tmp_path / "a" / "certificate.pem", in_any_case)}
        async with way_out(hosts) as egress:
            answer = await egress.fetch("GET", f"{ehr.url}/", headers={}, timeout=5, identity=shown)
            with pytest.raises(EhrError):
                await fetched(egress, f"{ehr.url}/")

    assert answer.status == 200


@BOTH_WAYS
async def test_files_that_change_are_used_without_a_restart_and_nothing_is_sent_while_they_are_broken(
    tmp_path: Path, way: Way
) -> None:
    """(TK-08): a connection that is open goes on; the next one goes by the files as they are."""
    ca = tmp_path / "ca.pem"
    async with serving("ehr.example", tmp_path / "a") as ehr, way_out({"ehr.example": HostTls(ca)}) as egress:
        for content in (None, "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
            if content is not None:
                ca.write_text(content)
            with pytest.raises(EhrUnreachable, match="ca_file cannot be used") as raised:
                await way(egress, f"{ehr.url}/")
            assert raised.value.ours
        assert ehr.connections == 0

        shutil.copy(tmp_path / "a" / "certificate.pem", ca)
        assert await way(egress, f"{ehr.url}/") == 200


@BOTH_WAYS
async def test_a_certificate_that_cannot_be_read_sends_nothing(tmp_path: Path, way: Way) -> None:
    """(OA-19)"""
    identity = ClientCertificate(tmp_path / "none.pem", tmp_path / "none-key.pem")
    async with serving("ehr.example", tmp_path / "a") as ehr:
        hosts = {"ehr.example": HostTls(tmp_path / "a" / "certificate.pem", identity)}
        async with way_out(hosts) as egress:
            with pytest.raises(EhrUnreachable, match="the client certificate cannot be used"):
                await way(egress, f"{ehr.url}/")

    assert ehr.connections == 0


@BOTH_WAYS
async def test_no_environment_makes_the_broker_write_down_the_keys_of_a_connection(
    tmp_path: Path, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(TK-08): with them, whoever recorded the wire could read the tokens."""
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    hosts = {"ehr.example": HostTls(tmp_path / "a" / "certificate.pem")}
    async with serving("ehr.example", tmp_path / "a") as ehr, way_out(hosts) as egress:
        assert await way(egress, f"{ehr.url}/") == 200

    assert not log.exists() or "SECRET_0" not in log.read_text()
