"""Where this process runs: `BROKER_*` environment variables. What it does stands in `broker.toml`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast, get_args

from broker.errors import ConfigurationError
from broker.limits import Network, canonical, read_network
from broker.secret import Secret
from broker.store.client import Durability
from broker.vault.keyring import OF_OTHERS, LocalKeyring, parse_keys, read_key_file

VARIABLES: Final[Mapping[str, str]] = {
    "BROKER_CONFIG": "path of broker.toml (default: broker.toml)",
    "BROKER_STATE": "directory for what a local run writes (default: .broker)",
    "BROKER_HOST": "address to listen on (default: 127.0.0.1)",
    "BROKER_PORT": "port to listen on (default: 8080)",
    "BROKER_REDIS_URL": "URL of the store: one server, Sentinel or Cluster; holds a password, so prefer the next one",
    "BROKER_REDIS_URL_FILE": "file that holds the URL of the store",
    "BROKER_REDIS_DURABILITY": "who must have a rotated refresh token: primary, replica or disk (default: primary)",
    "BROKER_KEK": "key-encryption keys: 32 random bytes in base64, one a line, the first one seals",
    "BROKER_KEK_FILE": "file of mode 0600 that holds the same; a systemd credential broker-kek needs neither",
    "BROKER_KMS": "key-management service that holds them instead: transit:, awskms:, gcpkms: or azurekv:",
    "BROKER_KMS_TOKEN": "token for Transit; prefer the next one",
    "BROKER_KMS_TOKEN_FILE": "file that holds the token for Transit, read anew at each use",
    "BROKER_KMS_CA_FILE": "file of the certificates that Transit's own is verified with (default: the system's)",
    "BROKER_AUDIT_FILE": "file for audit records; - is standard output (default: audit.jsonl in BROKER_STATE)",
    "BROKER_FORWARDED_ALLOW_IPS": "addresses of proxies whose X-Forwarded-For is believed (default: none)",
    "BROKER_CLIENT_CERTIFICATE_HEADER": "header in which those proxies pass on an app's certificate (default: none)",
    "BROKER_DRAIN_SECONDS": "seconds that requests may go on after SIGTERM (default: 30)",
}

CREDENTIAL: Final = "broker-kek"
"""The name in `LoadCredential=` or `LoadCredentialEncrypted=`, from which systemd makes a file in memory."""

# A Kubernetes Service named "broker" puts variables like these into every pod of its namespace.
_OF_KUBERNETES: Final = re.compile(r"BROKER_(SERVICE_\w+|PORT_\d+_\w+)=|BROKER_PORT=(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class CertificateHeader:
    """How TLS-terminating proxies pass on the certificate that an app showed (RFC 8705, RFC 9440)."""

    name: str
    proxies: tuple[Network, ...]
    """Who is believed."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The settings of one process."""

    config: Path
    state: Path
    host: str
    port: int
    redis_url: Secret | None
    durability: Durability
    audit_file: Path | None
    """None is standard output."""
    proxies: tuple[Network, ...]
    """Who is believed in what they say of callers."""
    certificate_header: CertificateHeader | None
    """None: no app can authenticate by certificate."""
    drain_seconds: int

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Deployment":
        """Read the environment. Raises `ConfigurationError` with one line per fault."""
        environ = {name: text for name, text in environ.items() if not _OF_KUBERNETES.match(f"{name}={text}")}
        faults = [
            f"{name} is not a setting. Known: {', '.join(VARIABLES)}"
            for name in environ
            if name.startswith("BROKER_") and name not in VARIABLES
        ]
        port = _number(environ, "BROKER_PORT", 8080, 0, 65535, faults)
        drain = _number(environ, "BROKER_DRAIN_SECONDS", 30, 0, 3600, faults)
        redis_url = _redis_url(environ, faults)
        durability = _durability(environ, faults)
        proxies = _proxies(environ, faults)
        certificate_header = _certificate_header(environ, proxies, faults)
        if faults:
            raise ConfigurationError(*faults)
        state = Path(environ.get("BROKER_STATE") or ".broker")
        audit = environ.get("BROKER_AUDIT_FILE") or str(state / "audit.jsonl")
        return cls(
            config=Path(environ.get("BROKER_CONFIG") or "broker.toml"),
            state=state,
            host=environ.get("BROKER_HOST") or "127.0.0.1",
            port=port,
            redis_url=redis_url,
            durability=durability,
            audit_file=None if audit == "-" else Path(audit),
            proxies=proxies,
            certificate_header=certificate_header,
            drain_seconds=drain,
        )


def key_encryption_keys(environ: Mapping[str, str]) -> LocalKeyring:
    """Return the keyring, whose first key wraps. Raises `ConfigurationError`: nothing starts without a key.

    Where neither variable is set, it is the credential `broker-kek` of a systemd service, if that has one.
    """
    text, path = environ.get("BROKER_KEK"), environ.get("BROKER_KEK_FILE")
    if not text and not path and (credential := _credential(environ)) is not None:
        return _keyring(read_key_file(credential, forbidden=OF_OTHERS))
    if bool(text) == bool(path):
        both = "both are set; keep one" if text else "neither is set"
        raise ConfigurationError(
            f"BROKER_KEK_FILE or BROKER_KEK must hold the key-encryption key: {both}. "
            "Fix: (umask 077; openssl rand -base64 32 > kek) and BROKER_KEK_FILE=kek"
        )
    return _keyring(parse_keys(text, "BROKER_KEK") if text else read_key_file(Path(str(path))))


def has_keyring(environ: Mapping[str, str]) -> bool:
    """Whether a keyring is given, good or bad."""
    named = any(environ.get(name) for name in ("BROKER_KEK", "BROKER_KEK_FILE"))
    return named or _credential(environ) is not None


def _credential(environ: Mapping[str, str]) -> Path | None:
    folder = environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, CREDENTIAL) if folder else None
    return path if path is not None and path.exists() else None


def _keyring(keys: list[bytes]) -> LocalKeyring:
    if not keys:
        raise ConfigurationError("the key-encryption key is empty. Fix: openssl rand -base64 32")
    return LocalKeyring(keys)


def _number(environ: Mapping[str, str], name: str, default: int, least: int, most: int, faults: list[str]) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    if re.fullmatch(r"[0-9]{1,9}", text) and least <= int(text) <= most:
        return int(text)
    faults.append(f"{name}={text!r} is not a number from {least} to {most}")
    return default


def _proxies(environ: Mapping[str, str], faults: list[str]) -> tuple[Network, ...]:
    """Read who is believed: addresses one by one, because whoever is believed can be any caller, and any app."""
    variable = "BROKER_FORWARDED_ALLOW_IPS"
    if not (text := environ.get(variable, "")):
        return ()
    try:
        networks = tuple(read_network(proxy.strip()) for proxy in text.split(","))
    except ValueError:
        networks = ()
    if not networks or any(network.prefixlen == 0 for network in canonical(networks)):
        faults.append(
            f"{variable}={text!r} must be addresses or networks of proxies with commas, such as 10.0.0.5, fd00::/64: "
            "without host bits, and not everybody's"
        )
    return networks


def _certificate_header(
    environ: Mapping[str, str], proxies: tuple[Network, ...], faults: list[str]
) -> CertificateHeader | None:
    variable = "BROKER_CLIENT_CERTIFICATE_HEADER"
    name = environ.get(variable, "")
    if not name:
        return None
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name):
        faults.append(f"{variable}={name!r} is not the name of a header")
    if not environ.get("BROKER_FORWARDED_ALLOW_IPS"):
        faults.append(f"{variable} needs BROKER_FORWARDED_ALLOW_IPS: the addresses of the proxies that send it")
    return CertificateHeader(name, proxies)


def _durability(environ: Mapping[str, str], faults: list[str]) -> Durability:
    text = environ.get("BROKER_REDIS_DURABILITY") or "primary"
    for durability in get_args(Durability):
        if text == durability:
            return cast("Durability", durability)
    faults.append(f"BROKER_REDIS_DURABILITY={text!r} is none of {', '.join(get_args(Durability))}")
    return "primary"


def _redis_url(environ: Mapping[str, str], faults: list[str]) -> Secret | None:
    url, path = environ.get("BROKER_REDIS_URL"), environ.get("BROKER_REDIS_URL_FILE")
    if url and path:
        faults.append("BROKER_REDIS_URL and BROKER_REDIS_URL_FILE are both set; keep one")
    elif path:
        try:
            if not (url := Path(path).read_text(encoding="utf-8").strip()):
                faults.append(f"BROKER_REDIS_URL_FILE={path} is empty")
        except (OSError, UnicodeDecodeError) as error:
            faults.append(f"BROKER_REDIS_URL_FILE={path} cannot be read ({type(error).__name__})")
    return Secret(url) if url else None
