"""TLS in both directions, to a server, a cluster and sentinels: by Debian's redis-server, where there is one."""

import datetime as dt
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.errors import StoreUnavailable
from broker.secret import Secret
from broker.store.connection import connect, store_errors
from tests.topology.sentinels import SERVICE
from tests.topology.server import PASSWORD, RECORDS, USER, Server, await_true, free_ports

HOST = "localhost"


@dataclass(frozen=True)
class Authority:
    """A certification authority and what it signed."""

    directory: Path

    @property
    def trusted(self) -> str:
        return str(self.directory / "ca.pem")

    def issue(self, name: str) -> Path:
        """Write a certificate with its key in one file: the authority's own, or one for a server or client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        own = self.directory / "ca.pem"
        now = dt.datetime.now(dt.UTC)
        signing, issuer = key, subject
        if name != "ca":
            loaded = x509.load_pem_x509_certificate(own.read_bytes())
            signing, issuer = self._key(), loaded.subject
        signed = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
            .sign(signing, hashes.SHA256())
        )
        path = self.directory / f"{name}.pem"
        path.write_bytes(signed.public_bytes(Encoding.PEM))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.directory / f"{name}.key").write_bytes(private)
        return path

    def _key(self) -> ec.EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - used here alone

        key = load_pem_private_key((self.directory / "ca.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    for name in ("ca", HOST, "broker"):
        authority.issue(name)
    return authority


@pytest.fixture(scope="module")
def program() -> Path:
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server on the PATH: the wheel's Valkey has no TLS")
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    if "Redis server v=7" not in version:
        pytest.skip(f"not the server of Debian: {version}")
    return Path(found)


def tls_lines(authority: Authority, port: int) -> list[str]:
    files = (f"tls-cert-file {authority.directory}/{HOST}.pem", f"tls-key-file {authority.directory}/{HOST}.key")
    return [f"tls-port {port}", *files, f"tls-ca-cert-file {authority.trusted}", "tls-auth-clients yes"]


@pytest.fixture(scope="module")
def tls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority, program: Path
) -> Iterator[str]:
    """Start what the parameter names, and yield its URL without options."""
    directory, kind = tmp_path_factory.mktemp("tls"), request.param
    plain, port, of_sentinel, sentinel_port = free_ports(4, with_bus=True)
    lines = [*RECORDS, *tls_lines(authority, port)]
    if kind == "cluster":
        lines += ["cluster-enabled yes", f"cluster-announce-hostname {HOST}", "tls-cluster yes"]
        lines += ["cluster-preferred-endpoint-type hostname"]
    with ExitStack() as running:
        server = Server(directory / "server", plain, lines)
        running.callback(server.stop)
        server.start(program)
        server.await_answer()
        if kind == "cluster":
            server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await_true(lambda: b"cluster_state:ok" in server.ask("CLUSTER", "INFO"), server.said)
        if kind == "sentinel":
            watching = [*tls_lines(authority, sentinel_port), "tls-replication yes", "sentinel resolve-hostnames yes"]
            watching += ["sentinel announce-hostnames yes", f"sentinel monitor {SERVICE} {HOST} {port} 1"]
            watching += [f"sentinel auth-user {SERVICE} {USER}", f"sentinel auth-pass {SERVICE} {PASSWORD}"]
            sentinel = Server(directory / "sentinel", of_sentinel, watching, sentinel=True)
            running.callback(sentinel.stop)
            sentinel.start(program)
            sentinel.await_answer()
            yield f"rediss+sentinel://{USER}:{PASSWORD}@{HOST}:{sentinel_port}/{SERVICE}/0"
        else:
            yield f"{'rediss+cluster' if kind == 'cluster' else 'rediss'}://{USER}:{PASSWORD}@{HOST}:{port}"


EVERY_KIND = pytest.mark.parametrize("tls", ["server", "cluster", "sentinel"], indirect=True)


@EVERY_KIND
@pytest.mark.parametrize(
    ("trusts", "shows", "accepted"),
    [(True, True, True), (True, False, False), (False, True, False)],
    ids=["mTLS", "no certificate of the broker's", "an unknown authority"],
)
async def test_both_sides_prove_themselves(
    tls: str, authority: Authority, *, trusts: bool, shows: bool, accepted: bool
) -> None:
    broker = authority.directory / "broker"
    options = [f"ssl_ca_certs={authority.trusted}"] if trusts else []
    options += [f"ssl_certfile={broker}.pem", f"ssl_keyfile={broker}.key"] if shows else []
    async with connect(Secret(f"{tls}?{'&'.join(options)}")) as redis:
        if accepted:
            assert await redis.set("sb:{tag}:grant", "1")
            assert await redis.get("sb:{tag}:grant") == b"1"
        else:
            with pytest.raises(StoreUnavailable), store_errors():
                await redis.set("sb:{tag}:grant", "1")


@EVERY_KIND
async def test_a_name_that_is_not_the_certificates_is_refused(tls: str, authority: Authority) -> None:
    broker = authority.directory / "broker"
    options = f"ssl_ca_certs={authority.trusted}&ssl_certfile={broker}.pem&ssl_keyfile={broker}.key"
    async with connect(Secret(f"{tls.replace(HOST, '127.0.0.1')}?{options}")) as redis:
        with pytest.raises(StoreUnavailable), store_errors():
            await redis.ping()
