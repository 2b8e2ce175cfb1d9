"""What handles are bound to: a key of the app (RFC 9449), its client certificate (RFC 8705 §3), or nothing (HB-03).

A binding can be demanded by an app's policy, is kept whatever is traded in, and never taken off.
"""

from broker.apps import App
from broker.errors import InvalidGrant, InvalidHandle, InvalidRequest
from broker.handles import Confirmation, Handle
from broker.policy import FindApp


def new_binding(app: App, proven: Confirmation, *, wanted: bool = False) -> Confirmation:
    """Return what a new handle of an app is bound to, of what its request proved.

    To a key wherever one was proved; to a certificate only where the policy says so or it is `wanted`, since many an
    app shows one at `/oauth/token` alone. Raises `InvalidRequest` where none was shown.
    """
    if not (wanted or app.settings.certificate_bound):
        return Confirmation(jkt=proven.jkt)
    if proven.x5t is None:
        raise InvalidRequest(
            "no client certificate to bind to, or no declared proxy that passes one on (OA-19)",
            public="A certificate-bound token needs a client certificate.",
        )
    return proven


def require_bound(handle: Handle, find_app: FindApp) -> None:
    """Raises `InvalidHandle` for an unbound handle of an app, or exchanged from one, whose handles must be bound.

    It is from before that app's policy said so: exchanging it through another app wins nothing.
    """
    for app in map(find_app, dict.fromkeys(handle.apps)):
        if app is None:
            continue
        if handle.jkt is None and app.settings.dpop == "required":
            raise InvalidHandle(
                f"handle {handle.id} is bound to no key, and app {app.id} must use DPoP", needs_proof=True
            )
        if handle.x5t is None and app.settings.certificate_bound:
            raise InvalidHandle(f"handle {handle.id} is bound to no certificate, and those of app {app.id} must be")


def keep_binding(app: App, bound_to: Confirmation, proven: Confirmation) -> None:
    """Raises `InvalidGrant` where what is traded in was bound, and the request does not prove that very binding.

    An app that authenticates may have changed its key or its certificate, as long as it has one (RFC 9449 §5).
    """
    if not _keeps(app, bound_to.jkt, proven.jkt):
        raise InvalidGrant("it is bound to a key, and the DPoP proof is missing or of another one")
    if not _keeps(app, bound_to.x5t, proven.x5t):
        raise InvalidGrant("it is bound to a certificate, and none was shown or another one")


def _keeps(app: App, bound_to: str | None, proven: str | None) -> bool:
    if bound_to is None or proven == bound_to:
        return True
    return proven is not None and app.settings.authentication != "none"
