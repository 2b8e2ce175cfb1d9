"""`broker apps`: secrets for apps that authenticate with one."""

import hashlib
import json

import typer

from broker.cli.session import JsonOption
from broker.clock import system_entropy
from broker.credentials import APP_SECRET, mint

commands = typer.Typer(help="Apps: make a secret.", no_args_is_help=True)


@commands.callback()
def _group() -> None:
    """Apps: make a secret."""


@commands.command("secret")
def secret(*, as_json: JsonOption = False) -> None:
    """Make a 256-bit secret. It is shown once and kept nowhere: broker.toml gets its hash."""
    made = mint(APP_SECRET, "", system_entropy).reveal()
    digest = "sha256:" + hashlib.sha256(made.encode()).hexdigest()
    if as_json:
        print(json.dumps({"secret": made, "secret_hash": digest}))
        return
    print(f"for the app:          {made}")
    print(f'for its [[app]] table:  secret_hash = "{digest}"')
