"""What callers and operators see is documented as it is: errors, audit events, commands, routes."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import pytest
from redis.asyncio import Redis
from starlette.routing import BaseRoute, Route

from broker import audit, errors
from broker.app import open_broker
from broker.settings import load
from broker.vault import LocalKeyring
from broker.web.errors import fhir_error, oauth_error
from tests.docs.help_texts import COMMANDS, page
from tests.docs.pages import PAGES, ROOT, code, read, rows, section

NEVER_ANSWERED: Final = "configuration_error"
EVERY_ERROR: Final = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.BrokerError) and error.code != NEVER_ANSWERED
]


def documented_errors() -> dict[str, list[str]]:
    return {code(row[0]): row[1:4] for row in rows(read("docs/operations.md"), "Code | `/oauth/*` | `/fhir/*`")}


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: error.__name__)
def test_every_error_is_documented_with_its_status_in_each_dialect(error: type[errors.BrokerError]) -> None:
    # EhrRefused wants more than a detail; what is asked here lies in the class alone.
    made = error.__new__(error)
    errors.BrokerError.__init__(made, "detail")
    oauth, fhir = oauth_error(made, request_id="r"), fhir_error(made, request_id="r")

    documented = documented_errors()[error.code]

    assert documented == [
        f"{oauth.status_code} `{json.loads(bytes(oauth.body))['error']}`",
        f"{fhir.status_code} `{error.issue}`",
        str(error.status),
    ]


def test_no_error_is_documented_that_does_not_exist() -> None:
    assert documented_errors().keys() == {error.code for error in EVERY_ERROR} | {NEVER_ANSWERED}


def test_every_audit_event_is_documented() -> None:
    table = rows(read("docs/operations.md"), "Event | Written")

    assert [code(row[0]) for row in table] == list(get_args(audit.Event))


def test_every_audit_field_is_documented() -> None:
    fields = section(read("docs/operations.md"), "## Audit").split("\nFields: ")[1].split("\n\n")[0]

    assert {"v", "at", *audit.AuditRecord.__slots__} <= set(re.findall(r"`([a-z_]+)`", fields))


def test_every_help_text_is_the_programs_own() -> None:
    assert (ROOT / COMMANDS).read_text(encoding="utf-8") == page(), "./run python -m tests.docs.help_texts"


def test_the_commands_that_pages_name_exist() -> None:
    known = set(re.findall(r"^## broker ([a-z ]+)$", read(str(COMMANDS)), re.MULTILINE))
    groups = {command.split(" ")[0] for command in known}
    for path in PAGES:
        for command in re.findall(r"`(?:\./run )?broker ([a-z]+(?: [a-z]+)?)\b", path.read_text(encoding="utf-8")):
            words = command.split(" ")
            assert command in known or (words[0] in groups and len(words) == 1), f"{path.name}: broker {command}"


def route_texts(routes: list[BaseRoute]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, Route):
            yield from (f"{method} {route.path}" for method in sorted((route.methods or set()) - {"HEAD"}))
        else:
            original = getattr(route, "original_router", None)
            assert original is not None, f"a route of an unknown kind: {route!r}"
            yield from route_texts(original.routes)


async def test_every_route_is_documented(redis: Redis, tmp_path: Path) -> None:
    settings = load(ROOT / "docs/deploy/broker.toml", {})
    async with open_broker(
        settings, redis=redis, kek=LocalKeyring([bytes(range(32))]), audit_file=tmp_path / "audit"
    ) as broker:
        served = set(route_texts(broker.application.routes))
        if any("fhir" in middleware.kwargs for middleware in broker.application.user_middleware):
            served.add("* /fhir/{ehr}/{path}")

    documented = {code(row[0]) for row in rows(read("docs/architecture.md"), "Route | What | Errors")}
    assert documented == served


def test_every_log_event_worth_an_alert_is_documented() -> None:
    logged = {
        event
        for path in ROOT.glob("broker/**/*.py")
        for event in re.findall(
            r"log\.(?:warning|error|exception|critical)\(\s*\"([a-z_]+)\"", path.read_text(encoding="utf-8")
        )
    }
    documented = {code(row[0]) for row in rows(read("docs/operations.md"), "`event` | Means")}

    assert documented == logged | {"refused"}
