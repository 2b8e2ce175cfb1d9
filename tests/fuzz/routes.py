"""The application's routes as an OpenAPI document, with what forms and queries hold, which the code reads by hand."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.fuzz.target import Target
from tests.stage.app import REDIRECT_URI
from tests.stage.broker import APP_SECRET_TEXT

FORM: Final = "application/x-www-form-urlencoded"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
PROOF: Final = "a good proof"
"""Stands for a DPoP proof of this very request: a proof is good for one."""
Schema = dict[str, Any]


def openapi(target: Target) -> Schema:
    """Return the description that the application itself gives, with parameters where it gives none."""
    document: Schema = {**target.stage.broker.application.openapi(), "openapi": "3.1.0"}
    parameters = _parameters(target)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            given = parameters.get(path, {"anything": _text()})
            operation["parameters"] = [
                *(_known_id(parameter) for parameter in operation.get("parameters", [])),
                *_headers(target),
                *([] if method == "post" else _in("query", given)),
            ]
            if method == "post" and "requestBody" not in operation:
                schema = _form(given)
                if path == "/oauth/token":  # so that one in two has no more than it takes to get far
                    alone = {"grant_type": _text(TOKEN_EXCHANGE), "client_id": _text("growth-chart")}
                    schema = {"anyOf": [schema, _form({**alone, **exchange(target)})]}
                operation["requestBody"] = {"content": {FORM: {"schema": schema}}}
    return document


def _parameters(target: Target) -> Mapping[str, Mapping[str, Schema]]:
    stage = target.stage
    client = {"client_id": _text("growth-chart", "reports"), "client_assertion": _text()}
    back = dict.fromkeys(("code", "state", "error", "error_description", "iss", "tab_key"), _text())
    return {
        "/launch/{registration}": {"iss": _text(stage.sandbox.fhir_base), "launch": _text()},
        "/callback/{registration}": back,
        "/callback/{registration}/{ehr}": back,
        "/oauth/authorize": {
            "response_type": _text("code", "token"),
            "client_id": _text("growth-chart", "reports", "framed"),
            "redirect_uri": _text(REDIRECT_URI),
            "scope": _text("launch/patient patient/*.rs", "system/*.cruds"),
            "state": _text("some-state-of-the-app"),
            "aud": _text(stage.base),
            "code_challenge": _text("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            "code_challenge_method": _text("S256", "plain"),
            "launch": _text(),
            "nonce": _text(),
            "response_mode": _optional("query", "fragment", "form_post"),
            "dpop_jkt": _optional(target.prover.thumbprint, "x" * 43),
            "authorization_details": _optional(*_details(stage.base)),
            "tab_key": _text(),
        },
        "/oauth/token": {
            "grant_type": _text("authorization_code", "refresh_token", "client_credentials", TOKEN_EXCHANGE),
            "code": _text("sbc_x", target.refresh_handle),
            "redirect_uri": _text(REDIRECT_URI),
            "code_verifier": _text("v" * 43),
            "refresh_token": _text(target.refresh_handle, "sbr_x"),
            "scope": _text("patient/Patient.rs", "system/Patient.rs"),
            "resource": _text(stage.base),
            **exchange(target),
            **client,
        },
        "/oauth/introspect": {"token": _text(target.handle, target.bound_handle), "token_type_hint": _text(), **client},
        # not the handle: later requests need it
        "/oauth/revoke": {"token": _text(target.refresh_handle), "token_type_hint": _text(), **client},
    }


def exchange(target: Target) -> Mapping[str, Schema]:
    """Return what a token exchange takes."""
    return {
        "subject_token": _text(target.handle, target.bound_handle),
        "subject_token_type": _text(ACCESS_TOKEN),
        "requested_token_type": _optional(ACCESS_TOKEN, "urn:ietf:params:oauth:token-type:jwt"),
        "audience": _optional(target.stage.base, "https://elsewhere.example"),
        "patient": _optional(target.patient, "somebody-else", "../Patient"),
        "uses": _optional("1", "0", "1e3", "1000001"),
        "expires_in": _optional("60", "-1", "١", "9" * 40),  # the third is a digit to int()
        "actor_token": _optional(target.handle),
    }


def _details(base: str) -> Iterator[str]:
    """Return `authorization_details`: sound, for another place, of another type, and no list of objects."""
    entry = {"type": "smart_on_fhir", "locations": [base], "scope": "patient/Patient.rs"}
    elsewhere = {**entry, "locations": ["https://elsewhere.example/fhir"]}
    other = {**entry, "type": "payment"}
    documents: tuple[object, ...] = ([entry], [elsewhere], [entry, entry], [other], [[]], [None], {})
    yield from map(json.dumps, documents)
    yield "[" * 5000


def _headers(target: Target) -> Iterator[Schema]:
    secret = base64.b64encode(f"reports:{APP_SECRET_TEXT}".encode()).decode()
    credentials = _text(
        f"Basic {secret}", f"Bearer {target.handle}", f"DPoP {target.bound_handle}", "Bearer sbh_x", "Basic !", "Bearer"
    )
    yield from _in(
        "header",
        {
            "Authorization": credentials,
            "Accept": _text("text/html", "application/json"),
            "Origin": _text("http://127.0.0.1:1", "null"),
            "Cookie": _text("sb_launch_x=y", "a=b; a=c", ";=;"),
            "DPoP": _text(PROOF, "e30.e30.e30"),
            "X-Request-Id": _text("0123456789abcdef"),
            "X-Forwarded-Host": _text("attacker.example"),
        },
    )


def _in(place: str, given: Mapping[str, Schema]) -> list[Schema]:
    return [
        {"in": place, "name": name, "schema": schema, "required": _is_known(schema) and place == "query"}
        for name, schema in given.items()
    ]


def _form(given: Mapping[str, Schema]) -> Schema:
    required = [name for name, schema in given.items() if _is_known(schema)]
    return {"type": "object", "properties": dict(given), "required": required, "additionalProperties": False}


def _known_id(parameter: Schema) -> Schema:
    known = {"ehr": ("sandbox",), "registration": ("sandbox-launch", "sandbox-backend", "both")}.get(
        parameter["name"], ()
    )
    return {**parameter, "schema": _text(*known)} if known else parameter


def _text(*known: str) -> Schema:
    """One of the known texts, which lead further in, or any where none is known."""
    return {"enum": list(known)} if known else {"type": "string"}


def _optional(*known: str) -> Schema:
    """One of the known texts, or no such parameter: what would always be refused beside another must also be absent."""
    return {"enum": list(known), "x-optional": True}


def _is_known(schema: Schema) -> bool:
    return "enum" in schema and "x-optional" not in schema
