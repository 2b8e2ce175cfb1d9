"""A binding is kept, and can be demanded; where the proofs themselves are checked is in tests/test_dpop.py."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from broker.apps import App
from broker.errors import InvalidGrant, InvalidHandle, Refusal
from broker.flows.check_dpop import keep_binding, require_bound
from broker.handles import Ancestor, Handle
from broker.scopes import Scopes
from broker.settings import AppSettings

SECRET = {"hash": "sha256:" + "0" * 64, "expires": date(2027, 1, 1)}
PUBLIC = {"authentication": "none"}
CONFIDENTIAL = {"authentication": "client_secret_basic", "secret": [SECRET]}


def app(**settings: Any) -> App:
    return App(AppSettings.model_validate({"id": "app", **PUBLIC, **settings}), ())


def handle(jkt: str | None, *ancestors: Ancestor, app_id: str = "app") -> Handle:
    return Handle("d" * 64, "t", app_id, "sandbox", Scopes(), "f", 9e9, jkt=jkt, ancestors=ancestors)


def refused(check: Callable[[], None]) -> bool:
    try:
        check()
    except Refusal:
        return True
    return False


@pytest.mark.parametrize(
    ("settings", "bound_to", "jkt"),
    [
        (PUBLIC, None, None),
        (PUBLIC, None, "new"),
        (PUBLIC, "old", "old"),
        (CONFIDENTIAL, "old", "old"),
        (CONFIDENTIAL, "old", "new"),
    ],
)
def test_a_binding_is_kept_or_added(settings: dict[str, Any], bound_to: str | None, jkt: str | None) -> None:
    """RFC 9449 §5 (HB-03)."""
    assert not refused(lambda: keep_binding(app(**settings), bound_to, jkt))


@pytest.mark.parametrize(
    ("settings", "bound_to", "jkt"), [(PUBLIC, "old", None), (PUBLIC, "old", "new"), (CONFIDENTIAL, "old", None)]
)
def test_a_binding_is_never_taken_off(settings: dict[str, Any], bound_to: str, jkt: str | None) -> None:
    """RFC 9449 §5 (HB-03)."""
    with pytest.raises(InvalidGrant, match="the DPoP proof is missing or of another one"):
        keep_binding(app(**settings), bound_to, jkt)


@pytest.mark.parametrize(("dpop", "jkt"), [("optional", None), ("optional", "key"), ("required", "key")])
def test_a_handle_works_as_its_app_is_meant_to(dpop: str, jkt: str | None) -> None:
    """(HB-03)"""
    assert not refused(lambda: require_bound(handle(jkt), {"app": app(dpop=dpop)}.get))


def test_an_unbound_handle_ends_when_its_app_is_held_to_dpop() -> None:
    """(HB-03)"""
    with pytest.raises(InvalidHandle, match="bound to no key") as caught:
        require_bound(handle(None), {"app": app(dpop="required")}.get)
    assert caught.value.needs_proof


@pytest.mark.parametrize("held_to", ["first", "between", "last"])
def test_an_unbound_handle_ends_when_any_app_it_went_through_is_held_to_dpop(held_to: str) -> None:
    """(HB-03)"""
    apps = {id_: app(id=id_, dpop="required" if id_ == held_to else "optional") for id_ in ("first", "between", "last")}
    through = [Ancestor("d" * 64, "first", counted=False), Ancestor("d" * 64, "between", counted=False)]
    with pytest.raises(InvalidHandle, match=f"app {held_to} must use DPoP"):
        require_bound(handle(None, *through, app_id="last"), apps.get)
    require_bound(handle("key", *through, app_id="last"), apps.get)
