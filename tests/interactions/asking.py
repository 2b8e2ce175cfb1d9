"""Requests written on one line, as these tests write them."""

import json
from typing import Any

from broker.interactions import Interaction, parse_interaction

FORM = "application/x-www-form-urlencoded"
JSON = "application/fhir+json"


def ask(line: str, body: bytes | None = None, /, **headers: str) -> Interaction:
    """`ask("GET Patient/1?_format=json")`; `Content_Type=` and the like are headers."""
    method, _, url = line.partition(" ")
    path, _, query = url.partition("?")
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return parse_interaction(method, path.encode(), query.encode(), sent, body)


def ask_by_form(path: str, form: str) -> Interaction:
    return ask(f"POST {path}", form.encode(), Content_Type=FORM)


def ask_bundle(*entries: dict[str, Any], kind: str = "transaction", **headers: str) -> Interaction:
    bundle = {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
    return ask("POST ", json.dumps(bundle).encode(), **({"Content_Type": JSON} | headers))


def entry(line: str, resource: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """Write a Bundle entry: `entry("POST Patient", {"resourceType": "Patient"}, ifNoneExist="identifier=1")`."""
    method, _, url = line.partition(" ")
    request = {"request": {"method": method, "url": url, **members}}
    return request if resource is None else {**request, "resource": resource}


def needs(interaction: Interaction) -> str:
    return " ".join(f"{need.type}.{need.letter}" for need in interaction.needs)
