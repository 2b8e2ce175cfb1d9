"""The command line of the sandbox, and the settings it makes."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from sandbox.personalities import PERSONALITIES
from sandbox.settings import (
    AudRule,
    DialectRule,
    EncodingRule,
    ErrorRule,
    FormatRule,
    IntrospectionRule,
    PageLinks,
    PushRule,
    RefreshRule,
    RevocationRule,
    Settings,
    TokenShape,
)

_CHOICES: tuple[tuple[str, Any, str], ...] = (
    ("aud", AudRule, "what aud must be"),
    ("pushed-requests", PushRule, "pushed authorization requests (RFC 9126)"),
    ("refresh", RefreshRule, "what a refresh gives, unless the client says otherwise"),
    ("scope-dialect", DialectRule, "the SMART version granted scopes are written in"),
    ("token-shape", TokenShape, "what launches, codes and access tokens look like"),
    ("token-errors", ErrorRule, "how the token endpoint says no"),
    ("introspection", IntrospectionRule, "what authorizes introspection"),
    ("revocation", RevocationRule, "what revoking a refresh token ends"),
    (
        "basic-encoding",
        EncodingRule,
        "what client_secret_basic does to id and secret, unless the client says",
    ),
    ("metadata-format", FormatRule, "what the CapabilityStatement is when nothing is asked for"),
    ("page-links", PageLinks, "how links to search pages are written: as HAPI's, Epic's or Oracle's"),
)
_SWITCHES = (
    ("response-iss", "send iss in authorization responses (RFC 9207)"),
    ("refuse-standalone-post", "take posted authorization requests in EHR launches only"),
    ("refresh-while-alive", "refuse a refresh once the access token has expired"),
    ("dpop", "bind tokens to the key of a DPoP proof (RFC 9449)"),
    ("dpop-nonce", "demand a nonce in every DPoP proof"),
    ("refuse-v2-scopes", "grant no scope of SMART v2, though it is advertised"),
    ("refuse-wildcards", "grant no scope with a wildcard, as at Oracle"),
    ("issuer-on-other-host", "put the OIDC issuer on the loopback's other name"),
    ("one-bulk-job", "let a client have one bulk export at a time"),
    ("dynamic-clients", "let clients register instances of themselves, as at Epic"),
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; ends the program with a usage text when they make no sense."""
    parser = argparse.ArgumentParser(prog="sandbox", description="A simulated EHR. All data is synthetic.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9400, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--public-url", help="origin under which it is reached (default: http://HOST:PORT)")
    parser.add_argument("--auto-approve", action="store_true", help="no login, patient or approval pages")
    parser.add_argument("--client", type=Path, action="append", default=[], metavar="FILE.json",
                        help="register the client, or list of clients, of this file; may be repeated")  # fmt: skip
    parser.add_argument("--patients", type=_positive, default=200, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of the population (default: %(default)s)")
    for name, default in (("access-token", 3600), ("code", 60), ("launch", 300), ("session", 28_800)):
        parser.add_argument(f"--{name}-lifetime", type=_positive, default=default, metavar="SECONDS",
                            help="(default: %(default)s)")  # fmt: skip
    for name, rules, says in _CHOICES:
        parser.add_argument(f"--{name}", choices=get_args(rules), default=get_args(rules)[0],
                            help=f"{says} (default: %(default)s)")  # fmt: skip
    for name, says in _SWITCHES:
        parser.add_argument(f"--{name}", action="store_true", help=says)
    parser.add_argument("--refresh-interval", type=int, default=0, metavar="SECONDS",
                        help="refuse a refresh this soon after another (default: %(default)s)")  # fmt: skip
    parser.add_argument("--jwks-lag", type=int, default=0, metavar="SECONDS",
                        help="go on with a client's key set this long (default: %(default)s)")  # fmt: skip
    for name, default, says in (("files", 0, "large files in each bulk export"), ("lines", 1000, "kilobytes of each")):
        parser.add_argument(f"--bulk-{name}", type=int, default=default, metavar="N",
                            help=f"{says} (default: %(default)s)")  # fmt: skip
    parser.add_argument("--clock-ahead", type=int, default=0, metavar="SECONDS",
                        help="how far its clock is ahead (default: %(default)s)")  # fmt: skip
    parser.add_argument("--tls", type=Path, metavar="DIR", help="serve https; ca.pem is written into this directory")
    parser.add_argument("--client-ca", type=Path, metavar="FILE.pem",
                        help="accept client certificates of these authorities, or these ones; needs --tls")  # fmt: skip
    for name, says in (("oauth-path", "of the OAuth endpoints"), ("issuer-path", "of the OIDC issuer")):
        parser.add_argument(f"--{name}", default="/oauth2", metavar="PATH", help=f"{says} (default: %(default)s)")
    parser.add_argument("--personality", choices=PERSONALITIES, default="generic",
                        help="the vendor to play; other options win (default: %(default)s)")  # fmt: skip
    parser.add_argument("--fault", type=_fault, action="append", default=[], metavar="NAME|JSON",
                        help="arm a fault, as POST /__faults does; may be repeated")  # fmt: skip
    parser.add_argument("--list-faults", action="store_true", help="print the faults that can be armed, and end")
    # Once to learn whom to play, and again with that vendor's habits for what was not said.
    parser.set_defaults(**PERSONALITIES[parser.parse_args(arguments).personality].settings)
    options = parser.parse_args(arguments)
    if options.client_ca and not options.tls:
        parser.error("--client-ca needs --tls")
    return options


def settings_of(options: argparse.Namespace, port: int) -> Settings:
    """Return the settings, now that the port is known."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    chosen: dict[str, Any] = {field.name: getattr(options, field.name) for field in fields(Settings)}
    scheme = "https" if options.tls else "http"
    public_url = (options.public_url or f"{scheme}://{host}:{port}").rstrip("/")
    return Settings(**{**chosen, "public_url": public_url})


def _fault(text: str) -> Any:
    try:
        return json.loads(text) if text.startswith("{") else {"name": text}
    except ValueError:
        raise argparse.ArgumentTypeError("must be a name, or a JSON object") from None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
