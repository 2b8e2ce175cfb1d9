"""What the tables of `broker.toml` are made of. Unknown keys are refused."""

import re
from ipaddress import ip_address
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from broker.errors import InvalidScope
from broker.interactions import is_defined
from broker.origins import origin
from broker.scopes import Scopes

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_MINUTES_OF_A_BURST: Final = 60
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


def _scopes(text: str) -> str:
    try:
        return str(Scopes.parse(text))
    except InvalidScope as error:
        raise ValueError(error.detail) from None


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"https", "http"} or not parts.hostname or "@" in parts.netloc or parts.port == 0:
        raise ValueError("must be an absolute https URL without user name or password")
    if not text.isascii():
        raise ValueError("must be ASCII: a host name in other letters is written as xn--…, a path percent-encoded")
    if parts.fragment or re.search(r"[\s<>\"\\^`{|}]", text):
        raise ValueError("must have no fragment, blanks or characters that a URL cannot hold")
    return text


def _base_url(text: str) -> str:
    if urlsplit(_url(text)).query:
        raise ValueError("must have no query")
    return text.rstrip("/")


def _origin(text: str) -> str:
    if _url(text) != origin(text):
        raise ValueError("must be an origin, as browsers write it: https://host or https://host:port")
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9._-]{1,253}|[0-9a-f:.]+", text.lower()):
        raise ValueError("must be one host name or address, without port, path or wildcard")
    return text.lower().removesuffix(".")


def _private_host(text: str) -> str:
    name = text.lower().removesuffix(".")
    try:
        address = ip_address(name)
    except ValueError:
        if not re.fullmatch(r"(?!-)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", name):
            raise ValueError("must be one host name or address, without port, path or wildcard") from None
        return name
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        raise ValueError("is an address that no EHR has; clouds hand out their own credentials there")
    return str(address)


def _operation(text: str) -> str:
    type_, _, name = text.rpartition("/")
    if not re.fullmatch(r"(?:[A-Z][A-Za-z]+/)?\$[a-z][A-Za-z0-9-]*", text):
        raise ValueError("must be an operation, as $name or Type/$name")
    if name == "$export" or is_defined(name, type_ or "*"):
        raise ValueError(f"{text} is nothing that an operator names: what it needs are scopes. Fix: remove it")
    return text


ScopeText = Annotated[str, AfterValidator(_scopes)]
Url = Annotated[str, AfterValidator(_url)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Host = Annotated[str, AfterValidator(_host)]
PrivateHost = Annotated[str, AfterValidator(_private_host)]
OperationName = Annotated[str, AfterValidator(_operation)]
Origin = Annotated[str, AfterValidator(_origin)]


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine's loopback, by name or address."""
    return urlsplit(url).hostname in LOOPBACK


def burst_fault(key: str, burst: int | None, of: str, per_minute: int | None) -> str | None:
    """Say what is wrong with the number of requests that may come at once, if anything is."""
    if burst is None:
        return None
    if per_minute is None:
        return f"{key} belongs to {of}"
    return f"{key} is more than an hour of {of} makes" if burst > per_minute * _MINUTES_OF_A_BURST else None


class Table(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True)
