"""Scopes as apps ask for them, and as the audit trail may hold them: a search value in a scope may be PHI (SC-05)."""

from broker.errors import InvalidScope
from broker.scopes import Scopes


def read_requested(text: str) -> Scopes:
    """Parse what an app wrote. Raises `InvalidScope`, which repeats nothing of it and names the limit, if any."""
    try:
        return Scopes.parse(text)
    except InvalidScope as error:
        raise InvalidScope("the requested scope is malformed, or says too much", public=error.public) from None


def read_narrowed(text: str | None, given: Scopes) -> Scopes:
    """Parse what an app wrote, if it did, to have no more than what was given. Raises `InvalidScope` (RF-02)."""
    if text is None:
        return given
    wanted = read_requested(text)
    if not wanted or not wanted.narrows(given):
        raise InvalidScope("the requested scope is more than the original scope (RF-02)")
    return wanted


def for_audit(scopes: Scopes) -> str:
    """Return the canonical text without the search parameters, which `?...` stands for."""
    places = [
        f"{scope.level}/{scope.type}.{scope.letters}{'?...' if scope.parameters else ''}" for scope in scopes.resources
    ]
    return " ".join(sorted([*scopes.others, *places]))
