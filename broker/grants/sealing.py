"""Terms and token sets as the text that is sealed, and back."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from broker.ehr.dynamic_client import DynamicClient
from broker.grants.launch_context import LaunchContext
from broker.grants.record import Terms, TokenSet
from broker.scopes import Scopes
from broker.secret import Secret

_SECRETS = ("access_token", "refresh_token", "proof_key")


def dump_terms(terms: Terms) -> bytes:
    """Return the terms as JSON."""
    names = ("ehr", "fhir_base", "registration", "flow", "app", "scope_assumed", "dynamic_client", "no_dynamic_client")
    flat = {name: getattr(terms, name) for name in names}
    return json.dumps({**flat, "scopes": str(terms.scopes), "context": asdict(terms.context)}).encode()


def load_terms(text: bytes) -> Terms:
    """Return what `dump_terms` was given."""
    fields = json.loads(text)
    context = fields.pop("context")
    context["fhir_context"] = tuple(context["fhir_context"])
    return Terms(**{**fields, "scopes": Scopes.parse(fields["scopes"]), "context": LaunchContext(**context)})


def dump_tokens(tokens: TokenSet) -> bytes:
    """Return the token set as JSON, in the clear: for the vault alone."""
    flat = {name: getattr(tokens, name) for name in ("renew_at", "expires_at", "lifetime", "expected_end")}
    secrets = {name: secret.reveal() if (secret := getattr(tokens, name)) else None for name in _SECRETS}
    return json.dumps({**flat, **secrets, "dynamic_client": _dump_client(tokens.dynamic_client)}).encode()


def load_tokens(text: bytes) -> TokenSet:
    """Return what `dump_tokens` was given."""
    fields = json.loads(text)
    secrets = {name: Secret(text) for name in _SECRETS if (text := fields.get(name))}
    client = _load_client(fields.get("dynamic_client"))
    return TokenSet(**{"refresh_token": None, **fields, **secrets, "dynamic_client": client})


def _dump_client(client: DynamicClient | None) -> dict[str, Any] | None:
    return None if client is None else {"key": client.key.reveal(), "registration": client.registration.reveal()}


def _load_client(fields: Mapping[str, Any] | None) -> DynamicClient | None:
    return None if fields is None else DynamicClient(Secret(fields["key"]), Secret(fields["registration"]))
