"""A binding is kept, and can be demanded; DPoP proofs themselves are checked in tests/test_dpop.py."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from broker.apps import App
from broker.errors import InvalidGrant, InvalidHandle, InvalidRequest, Refusal
from broker.flows.binding import keep_binding, new_binding, require_bound
from broker.handles import UNBOUND, Ancestor, Confirmation, Handle
from broker.scopes import Scopes
from broker.settings import AppSettings

SECRET = {"hash": "sha256:" + "0" * 64, "expires": date(2027, 1, 1)}
PUBLIC = {"authentication": "none"}
CONFIDENTIAL = {"authentication": "client_secret_basic", "secret": [SECRET]}
HELD = {"authentication": "tls_client_auth", "tls_client_auth_san_dns": "app.example", "certificate_bound": True}
BINDINGS = {"jkt": "the DPoP proof is missing or of another one", "x5t": "none was shown or another one"}


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
    ("settings", "bound_to", "proven"),
    [
        (PUBLIC, None, None),
        (PUBLIC, None, "new"),
        (PUBLIC, "old", "old"),
        (CONFIDENTIAL, "old", "old"),
        (CONFIDENTIAL, "old", "new"),
    ],
)
@pytest.mark.parametrize("by", BINDINGS)
def test_a_binding_is_kept_or_added(
    settings: dict[str, Any], bound_to: str | None, proven: str | None, by: str
) -> None:
    """RFC 9449 §5, RFC 8705 §4 (HB-03)."""
    one, other = Confirmation(**{by: bound_to}), Confirmation(**{by: proven})

    assert not refused(lambda: keep_binding(app(**settings), one, other))


@pytest.mark.parametrize(
    ("settings", "bound_to", "proven"), [(PUBLIC, "old", None), (PUBLIC, "old", "new"), (CONFIDENTIAL, "old", None)]
)
@pytest.mark.parametrize("by", BINDINGS)
def test_a_binding_is_never_taken_off(settings: dict[str, Any], bound_to: str, proven: str | None, by: str) -> None:
    """RFC 9449 §5, RFC 8705 §4 (HB-03)."""
    with pytest.raises(InvalidGrant, match=BINDINGS[by]):
        keep_binding(app(**settings), Confirmation(**{by: bound_to}), Confirmation(**{by: proven}))


@pytest.mark.parametrize(("bound_by", "proven_by"), [("jkt", "x5t"), ("x5t", "jkt")])
def test_one_binding_does_not_stand_in_for_the_other(bound_by: str, proven_by: str) -> None:
    """(HB-03)"""
    with pytest.raises(InvalidGrant, match=BINDINGS[bound_by]):
        keep_binding(app(**CONFIDENTIAL), Confirmation(**{bound_by: "one"}), Confirmation(**{proven_by: "one"}))


@pytest.mark.parametrize(
    ("settings", "wanted", "proven", "bound_to"),
    [
        (PUBLIC, False, UNBOUND, UNBOUND),
        (PUBLIC, False, Confirmation("key", "certificate"), Confirmation("key")),
        (PUBLIC, True, Confirmation("key", "certificate"), Confirmation("key", "certificate")),
        (CONFIDENTIAL, False, Confirmation(None, "certificate"), UNBOUND),
        (CONFIDENTIAL, True, Confirmation(None, "certificate"), Confirmation(None, "certificate")),
        (HELD, False, Confirmation(None, "certificate"), Confirmation(None, "certificate")),
        (HELD, False, Confirmation("key", "certificate"), Confirmation("key", "certificate")),
    ],
)
def test_a_handle_is_bound_to_a_certificate_where_that_is_wanted(
    settings: dict[str, Any], proven: Confirmation, bound_to: Confirmation, *, wanted: bool
) -> None:
    """RFC 8705 §3 (HB-03, OA-19)."""
    assert new_binding(app(**settings), proven, wanted=wanted) == bound_to


@pytest.mark.parametrize(("settings", "wanted"), [(PUBLIC, True), (HELD, False)])
def test_what_must_be_bound_to_a_certificate_is_not_issued_without(settings: dict[str, Any], *, wanted: bool) -> None:
    """RFC 8705 §3 (HB-03)."""
    with pytest.raises(InvalidRequest, match="no client certificate to bind to"):
        new_binding(app(**settings), Confirmation("key"), wanted=wanted)


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


@pytest.mark.parametrize("held_to", ["first", "last"])
def test_a_handle_without_a_certificate_ends_when_any_app_it_went_through_is_held_to_one(held_to: str) -> None:
    """RFC 8705 §3 (HB-03)."""
    apps = {id_: app(id=id_, **(HELD if id_ == held_to else {})) for id_ in ("first", "last")}
    through = Ancestor("d" * 64, "first", counted=False)

    with pytest.raises(InvalidHandle, match=f"bound to no certificate, and those of app {held_to} must be") as caught:
        require_bound(handle("key", through, app_id="last"), apps.get)

    assert not caught.value.needs_proof
    require_bound(replace(handle(None, through, app_id="last"), x5t="certificate"), apps.get)
