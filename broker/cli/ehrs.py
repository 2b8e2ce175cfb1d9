"""`broker ehrs`: what discovery found at each EHR, which hosts are in use, and which wait for an operator."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.app import Broker
from broker.apps import Directory
from broker.cli.session import ConfigOption, JsonOption, StateOption, open_session, print_rows, run
from broker.ehr.capabilities import KNOWN, capability_sets, unknown
from broker.ehr.dpop import binding_warning
from broker.ehr.dynamic_client import registration_warning
from broker.ehr.endpoints import Endpoints, method_warning
from broker.ehr.pin import Move, Pin
from broker.ehr.site import Site
from broker.errors import BrokerError, NotFound
from broker.refresh.limits import GateState
from broker.settings import EhrSettings

commands = typer.Typer(help="EHRs: what discovery found, and which hosts are in use.", no_args_is_help=True)
_COLUMNS = ("ehr", "state", "gate", "environment", "fhir_base", "token_endpoint", "quarantined", "warnings")


@commands.command("list")
def list_ehrs(*, config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """List all EHRs with what is pinned and what is quarantined. No EHR is asked."""
    rows = run(lambda: _list(config, state))
    if not as_json:
        rows = [{**row, **{name: _cell(row[name]) for name in ("quarantined", "warnings")}} for row in rows]
    print_rows(rows, _COLUMNS, as_json=as_json)


@commands.command("approve")
def approve(
    ehr: Annotated[str, typer.Argument(help="the EHR's id")],
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Use what is quarantined for an EHR from now on, on all replicas: credentials go to the new hosts."""
    moves = run(lambda: _approve(ehr, config, state))
    if as_json:
        print_rows([{"ehr": ehr, "approved": list(map(_move, moves))}], (), as_json=True)
        return
    for move in moves:
        print(f"{ehr}: {move}")


async def _list(config: Path | None, state: Path | None) -> list[dict[str, Any]]:
    async with open_session(config, state) as broker:
        sites = [(ehr, site) for ehr in broker.directory.ehrs for site in broker.directory.sites(ehr)]
        return [await _row(broker, ehr, site) for ehr, site in sites]


async def _row(broker: Broker, ehr: EhrSettings, site: Site) -> dict[str, Any]:
    row = {"ehr": ehr.id, "client_id": site.client_id, "environment": ehr.environment, "fhir_base": ehr.fhir_base}
    try:
        pin, gate = await broker.pins.read(site), await broker.gate.state(ehr.id)
    except BrokerError as error:
        return {**row, "state": error.code, "gate": None, **_seen(None), "warnings": []}
    seen = _seen(pin, site)
    if pin is not None:
        seen["warnings"] = [*pin.endpoints.warnings, *method_warnings(pin.endpoints, broker.directory, site)]
    return {**row, "state": _state(ehr, pin), **_gate(gate), **seen}


async def _approve(ehr_id: str, config: Path | None, state: Path | None) -> list[Move]:
    async with open_session(config, state) as broker:
        ehr = next((ehr for ehr in broker.directory.ehrs if ehr.id == ehr_id), None)
        if ehr is None:
            raise NotFound(f"there is no EHR {ehr_id!r}")
        waiting = [site for site in broker.directory.sites(ehr) if _waits(await broker.pins.read(site))]
        if not waiting:
            raise NotFound(f"nothing is quarantined for EHR {ehr_id}")
        return [move for site in waiting for move in await broker.pins.approve(site)]


def _waits(pin: Pin | None) -> bool:
    return pin is not None and bool(pin.moves)


def _gate(gate: GateState) -> dict[str, Any]:
    """Return whether the EHR's token endpoint is asked now."""
    until = None if gate.until is None else datetime.fromtimestamp(gate.until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"gate": gate.name, "gate_until": until, "token_requests": gate.under_way}


def _state(ehr: EhrSettings, pin: Pin | None) -> str:
    if not ehr.enabled:
        return "disabled"
    if pin is None:
        return "not seen yet"
    return "quarantined" if pin.moves else "pinned"


def method_warnings(endpoints: Endpoints, directory: Directory, site: Site) -> Iterator[str]:
    """Return how each registration of a site authenticates against what the EHR lists (DS-10)."""
    for registration in directory.registrations:
        if site.ehr in registration.ehr and site.client_id in {None, registration.client_id}:
            warning = method_warning(endpoints, registration.authentication, registration.signing_algorithm)
            unbound = binding_warning(endpoints) if registration.dpop else None
            homeless = registration_warning(endpoints) if registration.dynamic_client else None
            texts = (warning, unbound, homeless)
            yield from (f"registration {registration.id}: {text}" for text in texts if text is not None)


def _seen(pin: Pin | None, site: Site | None = None) -> dict[str, Any]:
    """Return every member that discovery read (DS-09), as the broker uses it."""
    if pin is None or site is None:
        return {"token_endpoint": None, "quarantined": [], "warnings": []}
    found = site.apply(pin.endpoints)
    return {
        **found.urls(),
        "overrides": list(site.overrides),
        "issuer": found.issuer,
        "sso": found.has("sso-openid-connect") and found.sso_off is None,
        "sso_off": found.sso_off,
        "features": {name: found.has(name) for name in KNOWN},
        "other_capabilities": unknown(found.capabilities),
        "capability_sets": capability_sets(found.capabilities),
        "grant_types": list(found.grant_types),
        "authentication_methods": list(found.authentication_methods),
        "signing_algorithms": list(found.signing_algorithms),
        "source": found.source,
        "answered_at": datetime.fromtimestamp(pin.answered_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "quarantined": list(map(_move, pin.moves)),
        "document": dict(found.document),
    }


def _move(move: Move) -> dict[str, str | None]:
    return {"member": move.member, "pinned": move.pinned, "found": move.found}


def _cell(listed: list[Any]) -> str:
    """Shorten for people: a quarantine in full, warnings by their number."""
    if listed and isinstance(listed[0], dict):
        return "; ".join(str(Move(**move)) for move in listed)
    return str(len(listed) or "")
