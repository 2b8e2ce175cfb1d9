"""Terms and token sets as the text that is sealed, and back."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from broker.ehr.dynamic_client import DynamicClient
from broker.grants.launch_context import LaunchContext
from broker.grants.record import Terms, TokenSet
from broker.scopes import Scopes
from broker.secret import Secret

_SECRETS = ("access_token", "refresh_token", "proof_key")


def dump_terms(terms: Terms) -> bytes:
    """Return the terms as JSON."""
    return _compact(_said(terms, {"scopes": str(terms.scopes), "context": _said(terms.context, {})}))


def load_terms(text: bytes) -> Terms:
    """Return what `dump_terms` was given."""
    said = json.loads(text)
    context = said.pop("context")
    context["fhir_context"] = tuple(context.get("fhir_context", ()))
    return Terms(**{**said, "scopes": Scopes.parse(said["scopes"]), "context": LaunchContext(**context)})


def dump_tokens(tokens: TokenSet) -> bytes:
    """Return the token set as JSON, in the clear: for the vault alone."""
    secrets = {name: secret.reveal() if (secret := getattr(tokens, name)) else None for name in _SECRETS}
    return _compact(_said(tokens, {**secrets, "dynamic_client": _dump_client(tokens.dynamic_client)}))


def load_tokens(text: bytes) -> TokenSet:
    """Return what `dump_tokens` was given."""
    said = json.loads(text)
    secrets = {name: Secret(text) for name in _SECRETS if (text := said.get(name))}
    client = _load_client(said.get("dynamic_client"))
    return TokenSet(**{"refresh_token": None, **said, **secrets, "dynamic_client": client})


def _said(record: Any, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's fields, as `written` where it says so, without those that are as they would be unsaid.

    There may be a million of these in the store.
    """
    flat = {one.name: written.get(one.name, getattr(record, one.name)) for one in fields(record)}
    return {one.name: flat[one.name] for one in fields(record) if flat[one.name] != _unsaid(one)}


def _unsaid(one: "Field[Any]") -> Any:
    return one.default_factory() if one.default_factory is not MISSING else one.default


def _compact(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode()


def _dump_client(client: DynamicClient | None) -> dict[str, Any] | None:
    return None if client is None else {"key": client.key.reveal(), "registration": client.registration.reveal()}


def _load_client(fields: Mapping[str, Any] | None) -> DynamicClient | None:
    return None if fields is None else DynamicClient(Secret(fields["key"]), Secret(fields["registration"]))
