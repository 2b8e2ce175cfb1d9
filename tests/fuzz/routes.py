"""The application's routes as an OpenAPI document, with what forms and queries hold, which the code reads by hand."""

import base64
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.fuzz.target import Target
from tests.stage.app import REDIRECT_URI
from tests.stage.broker import APP_SECRET_TEXT

FORM: Final = "application/x-www-form-urlencoded"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
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
                operation["requestBody"] = {"content": {FORM: {"schema": _form(given)}}}
    return document


def _parameters(target: Target) -> Mapping[str, Mapping[str, Schema]]:
    stage = target.stage
    client = {"client_id": _text("growth-chart", "reports"), "client_assertion": _text()}
    token = {"token": _text(target.handle), "token_type_hint": _text(), **client}
    return {
        "/launch/{registration}": {"iss": _text(stage.sandbox.fhir_base), "launch": _text()},
        "/callback/{registration}": dict.fromkeys(("code", "state", "error", "error_description", "iss"), _text()),
        "/oauth/authorize": {
            "response_type": _text("code", "token"),
            "client_id": _text("growth-chart", "reports"),
            "redirect_uri": _text(REDIRECT_URI),
            "scope": _text("launch/patient patient/*.rs", "system/*.cruds"),
            "state": _text("some-state-of-the-app"),
            "aud": _text(stage.base),
            "code_challenge": _text("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            "code_challenge_method": _text("S256", "plain"),
            "launch": _text(),
        },
        "/oauth/token": {
            "grant_type": _text("authorization_code", "refresh_token", "client_credentials", TOKEN_EXCHANGE),
            "code": _text("sbc_x", target.refresh_handle),
            "redirect_uri": _text(REDIRECT_URI),
            "code_verifier": _text("v" * 43),
            "refresh_token": _text(target.refresh_handle, "sbr_x"),
            "scope": _text("patient/Patient.rs", "system/Patient.rs"),
            "resource": _text(stage.base),
            "subject_token": _text(target.handle),
            "subject_token_type": _text("urn:ietf:params:oauth:token-type:access_token"),
            **client,
        },
        "/oauth/introspect": token,
        "/oauth/revoke": token,
    }


def _headers(target: Target) -> Iterator[Schema]:
    secret = base64.b64encode(f"reports:{APP_SECRET_TEXT}".encode()).decode()
    credentials = _text(f"Basic {secret}", f"Bearer {target.handle}", "Bearer sbh_x", "Basic !", "Bearer")
    yield from _in(
        "header",
        {
            "Authorization": credentials,
            "Accept": _text("text/html", "application/json"),
            "Origin": _text("http://127.0.0.1:1", "null"),
            "Cookie": _text("sb_launch_x=y", "a=b; a=c", ";=;"),
            "DPoP": _text("e30.e30.e30"),
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
    known = {"ehr": ("sandbox",), "registration": ("sandbox-launch", "sandbox-backend")}.get(parameter["name"], ())
    return {**parameter, "schema": _text(*known)} if known else parameter


def _text(*known: str) -> Schema:
    """One of the known texts, which lead further in, or any where none is known."""
    return {"enum": list(known)} if known else {"type": "string"}


def _is_known(schema: Schema) -> bool:
    return "enum" in schema
