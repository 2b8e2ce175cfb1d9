"""The `broker` command: one file per command group; thin: parse, call, print. No command prints a raw token."""

import sys
from typing import Annotated

import typer

from broker import __version__
from broker.errors import BrokerError, ConfigurationError

EXIT_CONFIGURATION = 78
"""sysexits.h EX_CONFIG."""


def _tell_version(asked: bool) -> None:  # noqa: FBT001  # typer's callback
    if asked:
        print(f"broker {__version__}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="print the version", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; an error is one or more lines on standard error, never a traceback."""
    from broker.cli import (  # noqa: PLC0415  # `--help` stays quick
        apps,
        backup,
        catalogs,
        check,
        demo,
        ehrs,
        grants,
        handles,
        keys,
        probe,
        registration_secrets,
        registrations,
        serve,
        vault,
        webhooks,
    )

    cli = typer.Typer(
        name="broker",
        help="SMART on FHIR token broker: EHR tokens stay sealed here; apps hold handles.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    cli.callback()(_options)
    cli.command("demo")(demo.demo)
    cli.command("serve")(serve.serve)
    cli.command("check")(check.check)
    cli.command("probe")(probe.probe)
    ehrs.commands.command("import")(catalogs.import_ehrs)
    ehrs.commands.command("enable")(catalogs.enable_ehrs)
    ehrs.commands.command("disable")(catalogs.disable_ehrs)
    registrations.commands.add_typer(registration_secrets.commands, name="secret")
    for group in (ehrs, registrations, keys, grants, handles, apps, vault, backup, webhooks):
        cli.add_typer(group.commands, name=group.__name__.rpartition(".")[2])
    try:
        cli(prog_name="broker")
    except ConfigurationError as error:
        for fault in error.faults:
            print(f"broker: {fault}", file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION)
    except BrokerError as error:
        print(f"broker: {error.code}: {error.detail}", file=sys.stderr)
        sys.exit(1)
