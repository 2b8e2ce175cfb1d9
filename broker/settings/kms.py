"""`BROKER_KMS`: which key-management service holds the key-encryption keys, in one line."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qs, urlsplit

from broker.errors import ConfigurationError
from broker.secret import Secret

_BESIDE: Final = ("BROKER_KMS_TOKEN", "BROKER_KMS_TOKEN_FILE", "BROKER_KMS_CA_FILE")
Kind = Literal["transit", "awskms", "gcpkms", "azurekv"]
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_PREFIX: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,19}")
_PLACES: Final[Mapping[str, re.Pattern[str]]] = {
    "transit": re.compile(r"https?://[^/@?#\s]+/[A-Za-z0-9._/-]+"),
    "awskms": re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]"),
    "gcpkms": re.compile(r"projects/[^/\s]+/locations/[^/\s]+/keyRings/[^/\s]+"),
    "azurekv": re.compile(r"https://[A-Za-z0-9-]+\.vault\.(azure\.net|azure\.cn|usgovcloudapi\.net)"),
}
_OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    "transit": frozenset({"prefix", "namespace"}),
    "awskms": frozenset({"prefix", "create", "endpoint", "deletion_days"}),
    "gcpkms": frozenset({"prefix", "create"}),
    "azurekv": frozenset({"prefix", "create"}),
}
_EXAMPLES: Final = (
    "transit:https://bao.internal:8200/transit, awskms:eu-central-1, gcpkms:projects/P/locations/L/keyRings/R "
    "or azurekv:https://NAME.vault.azure.net, each with ?prefix=broker"
)


@dataclass(frozen=True, slots=True)
class KmsSettings:
    """Where the keys are."""

    kind: Kind
    place: str
    """Of Transit the URL of its mount, of AWS the region, of Google the key ring, of Azure the vault's URL."""
    prefix: str = "broker"
    """With what the keys' names begin."""
    namespace: str | None = None
    endpoint: str | None = None
    """Of AWS another URL than the region's own, such as that of a VPC endpoint."""
    may_create: bool = True
    """Whether the broker makes the key of an EHR that has none."""
    deletion_days: int = 30
    """How long AWS keeps a destroyed key, 7 to 30."""
    token: Secret | None = None
    token_file: Path | None = None
    ca_file: Path | None = None


def read_kms(environ: Mapping[str, str]) -> KmsSettings | None:
    """Read the variables; None where `BROKER_KMS` is not set. Raises `ConfigurationError`."""
    text = environ.get("BROKER_KMS", "")
    beside = {name: environ.get(name, "") for name in _BESIDE}
    if not text:
        if given := [name for name, value in beside.items() if value]:
            raise ConfigurationError(f"{given[0]} is set and BROKER_KMS is not. Fix: BROKER_KMS={_EXAMPLES}")
        return None
    kind, _, rest = text.partition(":")
    place, _, query = rest.partition("?")
    if kind not in _PLACES or not _PLACES[kind].fullmatch(place):
        raise ConfigurationError(f"BROKER_KMS names no key-management service. Fix: {_EXAMPLES}")
    options = _options(kind, query)
    if kind == "transit":
        _require_transit(urlsplit(place), beside)
        place = _mount(urlsplit(place))
    elif given := [name for name, value in beside.items() if value]:
        raise ConfigurationError(f"{given[0]} is for Transit, and BROKER_KMS is {kind}. Fix: leave it out")
    return KmsSettings(
        kind=kind,  # type: ignore[arg-type]  # one of _PLACES
        place=place,
        prefix=options.get("prefix", "broker"),
        namespace=options.get("namespace"),
        endpoint=options.get("endpoint"),
        may_create=options.get("create", "yes") == "yes",
        deletion_days=int(options.get("deletion_days", "30")),
        token=Secret(beside["BROKER_KMS_TOKEN"]) if beside["BROKER_KMS_TOKEN"] else None,
        token_file=Path(beside["BROKER_KMS_TOKEN_FILE"]) if beside["BROKER_KMS_TOKEN_FILE"] else None,
        ca_file=Path(beside["BROKER_KMS_CA_FILE"]) if beside["BROKER_KMS_CA_FILE"] else None,
    )


_RULES: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "prefix": (_PREFIX, "up to 20 small letters, digits and -"),
    "namespace": (re.compile(r"[A-Za-z0-9._/-]+"), "a namespace"),
    "create": (re.compile(r"yes|no"), "yes or no"),
    "endpoint": (re.compile(r"https://[^/@?#\s]+"), "an https URL without path"),
    "deletion_days": (re.compile(r"[7-9]|[12][0-9]|30"), "7 to 30"),
}


def _options(kind: str, query: str) -> dict[str, str]:
    try:
        given = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ConfigurationError("BROKER_KMS: what follows ? is not NAME=VALUE&…. Fix: ?prefix=broker") from None
    for name, values in given.items():
        if name not in _OPTIONS[kind]:
            known = ", ".join(sorted(_OPTIONS[kind]))
            raise ConfigurationError(f"BROKER_KMS: {name} is no option of {kind}. Known: {known}")
        pattern, meaning = _RULES[name]
        if len(values) != 1 or not pattern.fullmatch(values[0]):
            raise ConfigurationError(f"BROKER_KMS: {name} has to be {meaning}, once")
    return {name: values[0] for name, values in given.items()}


def _require_transit(url: SplitResult, beside: Mapping[str, str]) -> None:
    if url.scheme == "http" and url.hostname not in _LOOPBACK:
        raise ConfigurationError("BROKER_KMS: plain http is for an agent on this machine's loopback. Fix: https")
    if bool(beside["BROKER_KMS_TOKEN"]) == bool(beside["BROKER_KMS_TOKEN_FILE"]):
        raise ConfigurationError(
            "BROKER_KMS is Transit, which wants a token. "
            "Fix: one of BROKER_KMS_TOKEN_FILE (a file that an agent keeps current) and BROKER_KMS_TOKEN"
        )


def _mount(url: SplitResult) -> str:
    path = url.path.strip("/")
    return f"{url.scheme}://{url.netloc}/v1/{path.removeprefix('v1/')}"
