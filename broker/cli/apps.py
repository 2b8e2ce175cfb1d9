"""`broker apps`: what each app may have and how it proves itself; secrets for those that authenticate with one."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.app import Broker
from broker.apps import App
from broker.cli.session import ConfigOption, JsonOption, StateOption, open_session, print_rows, run
from broker.clock import system_clock, system_entropy
from broker.credentials import APP_SECRET, mint
from broker.settings.proof import MOST_SECRET_DAYS

commands = typer.Typer(help="Apps: what they may have, and their secrets.", no_args_is_help=True)
_COLUMNS = ("app", "authentication", "ehrs", "scopes", "secrets")


@commands.callback()
def _group() -> None:
    """Apps: what they may have, and their secrets."""


@commands.command("list")
def list_apps(*, config: ConfigOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """List all apps with the EHRs and scopes they may have, and when their secrets expire and were last used."""
    rows = run(lambda: _list(config, state))
    if not as_json:
        rows = [{**row, "ehrs": _ehrs(row), "scopes": _scopes(row), "secrets": _secrets(row)} for row in rows]
    print_rows(rows, _COLUMNS, as_json=as_json)


@commands.command("secret")
def secret(
    *,
    days: Annotated[int, typer.Option(min=1, max=MOST_SECRET_DAYS - 1, help="days until it expires")] = 180,
    as_json: JsonOption = False,
) -> None:
    """Make a 256-bit secret. It is shown once and kept nowhere: broker.toml gets its hash, and when it expires.

    An app can have two at once: add the new table, restart, hand the secret out, remove the old table.
    """
    made = mint(APP_SECRET, "", system_entropy).reveal()
    digest = "sha256:" + hashlib.sha256(made.encode()).hexdigest()
    expires = (datetime.fromtimestamp(system_clock(), UTC) + timedelta(days=days)).date().isoformat()
    if as_json:
        print(json.dumps({"secret": made, "hash": digest, "expires": expires}))
        return
    print(f"for the app:  {made}")
    print("for broker.toml, below the app's [[app]] table:\n")
    print(f'[[app.secret]]\nhash = "{digest}"\nexpires = {expires}')


async def _list(config: Path | None, state: Path | None) -> list[dict[str, Any]]:
    async with open_session(config, state) as broker:
        return [await _row(broker, app) for app in broker.directory.apps]


async def _row(broker: Broker, app: App) -> dict[str, Any]:
    secrets = app.settings.secret
    used = await broker.last_used.read(app.id, [secret.name for secret in secrets])
    return {
        "app": app.id,
        "name": app.settings.name,
        "authentication": app.settings.authentication,
        "access": [
            {
                "registration": allowance.registration.id,
                "flow": allowance.registration.flow,
                "ehrs": list(allowance.registration.ehr),
                "scopes": str(allowance.scopes),
            }
            for allowance in app.allowances
        ],
        "secrets": [
            {
                "id": secret.name,
                "expires": _time(secret.expires_at),
                "expired": secret.expires_at <= system_clock(),
                "last_used": None if at is None else _time(at),
            }
            for secret, at in zip(secrets, used, strict=True)
        ],
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ehrs(row: dict[str, Any]) -> str:
    return " ".join(dict.fromkeys(ehr for access in row["access"] for ehr in access["ehrs"]))


def _scopes(row: dict[str, Any]) -> str:
    return " ".join(dict.fromkeys(scope for access in row["access"] for scope in access["scopes"].split()))


def _secrets(row: dict[str, Any]) -> str:
    """Write each secret as `id until DAY, used DAY`."""
    return "; ".join(
        f"{secret['id']} {'expired' if secret['expired'] else 'until'} {secret['expires'][:10]}, "
        f"{'used ' + secret['last_used'][:10] if secret['last_used'] else 'never used'}"
        for secret in row["secrets"]
    )
