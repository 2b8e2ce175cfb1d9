"""`broker probe`: look at any FHIR server before it is configured."""

import json
from typing import Annotated, Any

import typer

from broker.cli.session import JsonOption, run
from broker.clock import system_clock
from broker.egress import Egress
from broker.ehr.probe import Probe
from broker.ehr.probe_report import report
from broker.errors import ConfigurationError
from broker.profiles import profile, profile_names

_HIDDEN = ("differences", "warnings", "broker_toml", "endpoints")


def probe(
    fhir_base: Annotated[str, typer.Argument(help="the FHIR base URL")],
    *,
    profile_name: Annotated[str, typer.Option("--profile", help="what to hold it against")] = "generic",
    allow_loopback_http: Annotated[bool, typer.Option(help="allow http:// to this machine")] = False,
    allow_private_host: Annotated[
        list[str] | None, typer.Option(help="a host at a private address; repeatable")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read a server's public documents, and print what it can do and the [[ehr]] block for it. Exit 1: not usable."""
    if profile_name not in profile_names():
        raise ConfigurationError(f"there is no profile {profile_name!r}; known: {', '.join(profile_names())}")
    seen = run(lambda: _probe(fhir_base.rstrip("/"), profile_name, allow_loopback_http, allow_private_host or []))
    print(json.dumps(seen, indent=2) if as_json else _text(seen))
    if not seen["usable"]:
        raise typer.Exit(1)


async def _probe(fhir_base: str, name: str, loopback: bool, private: list[str]) -> dict[str, Any]:  # noqa: FBT001  # as typer read them
    egress = Egress(allow_loopback_http=loopback, allow_private_hosts=private)
    try:
        sight = await Probe(egress, system_clock)(fhir_base)
    finally:
        await egress.close()
    return report(sight, name, profile(name), system_clock())


def _text(seen: dict[str, Any]) -> str:
    facts = {**seen["endpoints"], **{name: value for name, value in seen.items() if name not in _HIDDEN}}
    width = max(len(name) for name in facts)
    lines = [f"{name.ljust(width)}  {_cell(value)}" for name, value in facts.items()]
    different = [
        f"differs from profile {seen['profile']}: {name} = {json.dumps(value)}"
        for name, value in seen["differences"].items()
    ]
    noted = [f"! {text}" for text in seen["warnings"]]
    return "\n".join([*lines, *([""] if different or noted else []), *different, *noted, "", seen["broker_toml"]])


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
