"""`broker grants`: what EHRs authorized. Never a token; never the context, which names a person."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.app import Broker
from broker.cli.session import ConfigOption, JsonOption, StateOption, open_session, print_rows, run
from broker.errors import BrokerError, ReauthorizationRequired
from broker.grants import Grant, health_of
from broker.reauthorizations import LONGEST_SECONDS

commands = typer.Typer(help="Grants: what EHRs authorized.", no_args_is_help=True)
_FORECAST_COLUMNS = ("ehr", "grants", "over", "first_end", "because")
_COLUMNS = ("grant", "health", "ehr", "app", "flow", "generation", "expires_at", "evidence")


@commands.command("list")
def list_grants(*, config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """List all grants."""
    print_rows(run(lambda: _list(config, state)), _COLUMNS, as_json=as_json)


@commands.command("show")
def show(
    grant: Annotated[str, typer.Argument(help="the grant's id, as listed")],
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
    introspect: Annotated[
        bool, typer.Option("--introspect", help="ask the EHR about the token, and show where it differs")
    ] = False,
) -> None:
    """Show one grant and its live handles."""
    shown = run(lambda: _show(grant, config, state, introspect=introspect))
    if as_json:
        print_rows([shown], (), as_json=True)
        return
    for name, value in shown.items():
        print(f"{name:<15} {value if value not in (None, []) else '-'}")


@commands.command("refresh")
def refresh(
    grant: Annotated[str, typer.Argument(help="the grant's id, as listed")],
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
    even_uncertain: Annotated[
        bool,
        typer.Option("--even-uncertain", help="send the refresh token again although its last answer was lost"),
    ] = False,
) -> None:
    """Renew a grant now. One that is uncertain only with --even-uncertain: an EHR may take that for theft."""
    shown = run(lambda: _refresh(grant, config, state, even_uncertain=even_uncertain))
    if as_json:
        print_rows([shown], (), as_json=True)
        return
    print(f"{grant}: generation {shown['generation']}, {shown['health']}; its token ends at {shown['expires_at']}")


@commands.command("reauthorize")
def reauthorize(
    grant: Annotated[str, typer.Argument(help="the grant's id, as listed")],
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
    lifetime: Annotated[
        int, typer.Option("--lifetime", help="seconds that the link lives", min=300, max=LONGEST_SECONDS)
    ] = 86_400,
) -> None:
    """Make a one-time link by which the same person authorizes a grant again. Its id and its handles stay."""
    url, until, held = run(lambda: _reauthorize(grant, lifetime, config, state))
    if as_json:
        print_rows([{"grant": grant, "url": url, "expires_at": until, "handles": held}], (), as_json=True)
        return
    print(url)
    print(f"give it to the person that {grant} is about; it works once, until {until}", file=sys.stderr)
    if not held:
        print("no app holds anything of this grant any more; a new launch would serve better", file=sys.stderr)


@commands.command("forecast")
def forecast(
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
    days: Annotated[int, typer.Option("--days", help="how far to look ahead", min=1, max=3650)] = 7,
) -> None:
    """Say which grants will soon need their person again, by EHR, and why that is believed."""
    found = run(lambda: _forecast(days, config, state))
    if as_json:
        print_rows([found], (), as_json=True)
        return
    print(f"{found['ending']} of {found['living']} grants end within {days} days")
    if found["lines"]:
        print_rows(found["lines"], _FORECAST_COLUMNS, as_json=False)
    for name, said in (("unknown", "nothing tells when they end"), ("unreadable", "they cannot be read")):
        if found[name]:
            print(f"of {found[name]} grants {said}", file=sys.stderr)


@commands.command("revoke")
def revoke(
    grant: Annotated[str, typer.Argument(help="the grant's id, as listed")],
    *,
    config: ConfigOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a grant: here at once with all its handles, then at the EHR as far as it offers that."""
    at_ehr, place = run(lambda: _revoke(grant, config, state))
    if as_json:
        more = {} if place is None else {"management_endpoint": place}
        print_rows([{"grant": grant, "state": "revoked", "at_ehr": at_ehr, **more}], (), as_json=True)
        return
    print(f"{grant} is revoked; at the EHR: {at_ehr}")
    if place is not None:
        print(f"the person can end it at the EHR: {place}")


async def _list(config: Path | None, state: Path | None) -> list[dict[str, Any]]:
    async with open_session(config, state) as broker:
        return sorted([await _row(broker, tag) async for tag in broker.grants.tags()], key=lambda row: row["grant"])


async def _row(broker: Broker, tag: str) -> dict[str, Any]:
    try:
        return describe(await broker.grants.read(tag), now=broker.clock())
    except BrokerError as error:
        return {"grant": tag, "state": "unreadable", "cause": error.code}


async def _show(tag: str, config: Path | None, state: Path | None, *, introspect: bool) -> dict[str, Any]:
    async with open_session(config, state) as broker:
        grant = await broker.grants.read(tag)
        handles = await broker.handles.live(tag)
        return {
            **describe(grant, now=broker.clock()),
            "scopes": str(grant.terms.scopes),
            "scope_assumed": grant.terms.scope_assumed,
            "dynamic_client": "registered" if grant.terms.dynamic_client else grant.terms.no_dynamic_client,
            "context_missing": grant.terms.context_missing,
            "last_used": _when(grant.used_at),
            "expected_end": _when(grant.expected_end) if grant.expected_end is not None else None,
            **({"differences": await broker.introspect_grant(tag)} if introspect else {}),
            "handles": [{"handle": h.id, "app": h.app, "expires_at": _when(h.expires_at)} for h in handles],
        }


async def _refresh(tag: str, config: Path | None, state: Path | None, *, even_uncertain: bool) -> dict[str, Any]:
    async with open_session(config, state) as broker:
        grant = await broker.grants.read(tag)
        renewed = await broker.keeper.refresher.renewal.renew(grant, even_uncertain=even_uncertain)
        if renewed.generation == grant.generation:
            raise ReauthorizationRequired(f"grant {tag} is {renewed.state}: {renewed.cause}. See --even-uncertain")
        return describe(renewed, now=broker.clock())


async def _reauthorize(tag: str, lifetime: int, config: Path | None, state: Path | None) -> tuple[str, str, int]:
    """Return the link, its end, and how many handles and refresh handles would live on."""
    async with open_session(config, state) as broker:
        offered = await broker.offer_reauthorization(tag, lifetime=lifetime)
        return offered.url.reveal(), _when(offered.expires_at), await broker.handles.held(tag)


async def _forecast(days: int, config: Path | None, state: Path | None) -> dict[str, Any]:
    async with open_session(config, state) as broker:
        found = await broker.forecast_grants(days * 86_400.0)
    lines = sorted(found.lines.values(), key=lambda line: line.first_end)
    return {
        "days": days,
        "ending": found.ending,
        "living": found.living,
        "unknown": found.unknown,
        "unreadable": found.unreadable,
        "lines": [{**asdict(line), "first_end": _when(line.first_end)} for line in lines],
    }


async def _revoke(tag: str, config: Path | None, state: Path | None) -> tuple[str, str | None]:
    """Return what became of it at the EHR and, where the broker could end nothing there, where the person can."""
    async with open_session(config, state) as broker:
        at_ehr = await broker.revoke_grant(tag, cause="revoked by an operator")
        return at_ehr, await broker.revoke_grant.management_endpoint(tag) if at_ehr == "local_only" else None


def describe(grant: Grant, *, now: float) -> dict[str, Any]:
    """Return what an operator may see of a grant."""
    report = health_of(grant, now=now)
    return {
        "grant": grant.tag,
        "health": report.health,
        "health_since": _when(report.since),
        "evidence": report.evidence,
        "action": report.action,
        "state": grant.state,
        "ehr": grant.terms.ehr,
        "registration": grant.terms.registration,
        "app": grant.terms.app,
        "flow": grant.terms.flow,
        "generation": grant.generation,
        "refreshable": grant.refreshable,
        "created_at": _when(grant.created_at),
        "since": _when(grant.since),
        "expires_at": _when(grant.expires_at),
        "cause": grant.cause,
    }


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
