"""Settings that change while the sandbox runs: what an option of the command line says, for as long as a test wants."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sandbox.settings import Settings

FIXED = frozenset({"public_url", "patients", "seed", "client_ca", "personality"})
"""What is settled when the sandbox starts, or elsewhere."""


def switch(settings: Settings, document: Any) -> Settings:
    """Return the settings with those of a JSON object in their place; raises `ValueError`."""
    known = switches(settings)
    if not isinstance(document, dict) or not set(document) <= set(known):
        raise ValueError(f"the body is an object with some of {', '.join(known)}")
    hints = get_type_hints(Settings)
    for name, value in document.items():
        if fault := _fault(hints[name], value):
            raise ValueError(f"{name} must be {fault}")
    return replace(settings, **document)


def switches(settings: Settings) -> Mapping[str, Any]:
    """Return what can be changed, as it is now."""
    return {field.name: getattr(settings, field.name) for field in fields(settings) if field.name not in FIXED}


def _fault(hint: Any, value: Any) -> str | None:
    if get_origin(hint) is Literal:
        return None if value in get_args(hint) else f"one of {', '.join(get_args(hint))}"
    if type(value) is not hint or (hint is int and value < 0):
        return {bool: "true or false", int: "a number, 0 or more"}.get(hint, "a string")
    return None
