"""The decision: may this handle do this interaction? Pure: no store, no network, no clock.

A handle can do what its own scopes, its grant's scopes and its app's policy allow together, and nothing else. Checks,
in order, the first refusal wins:

1. the grant is active                                                  (else `ReauthorizationRequired`)
2. the handle's app is known and its policy still names the registration; the same of every app that the handle was
   exchanged from, and each of them may still be exchanged from by the next
3. an operation whose reach nobody knows is one that the operator named for each of these apps
4. the request arrived as the limits of the handle and of the policies want it, and is within them; a search asks for no
   more matches a page than they allow
5. every need of the interaction is covered by the handle's scopes ∩ grant ∩ policies (SC-01…SC-09)
6. where a `patient/` scope is what covers it, or the handle was narrowed to one patient: no other patient is named, and
   a patient is in context (CX-10, PX-14)
7. and where the EHR's token reaches beyond that patient, so that the EHR will not bind the request: it binds itself, or
   can be made to, or the answer shows whose it is
8. where scopes with search parameters are what covers it: it says them, or can be made to, or the answer shows them

5 to 8 are decided of each part of the interaction in `broker/deciding.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Final, TypeAlias

from broker.apps import Allowance, App
from broker.deciding import check, decide_part
from broker.errors import InsufficientScope, InvalidHandle, UnauthorizedClient, UninterpretableInteraction
from broker.grants import Grant
from broker.granular import Searchable
from broker.handles import Handle
from broker.interactions import Interaction, Need
from broker.limits import Arrival, Limits, applied, meet, require_met
from broker.part import Held
from broker.release import Checks
from broker.remembered import Remembered
from broker.scopes import Scopes

_DECIDED: Final = object()
REMEMBERED: Final = 4096
"""For how many handles and grants it is known what is left of their scopes."""

FindApp: TypeAlias = Callable[[str], App | None]
FindArrival: TypeAlias = Callable[[], Arrival]


@dataclass(frozen=True, slots=True)
class Permit:
    """Proof that a handle may do one interaction. Only `decide` makes one; without it nobody can ask for a token."""

    handle: Handle
    grant: Grant
    interaction: Interaction
    """What goes on."""
    needs: tuple[Need, ...]
    """The interaction's needs; those that the EHR would not bind name the patient whom the request binds them to."""
    relies_on_search: bool
    """The decision counts on the EHR honouring a search parameter, so it must be told not to ignore one."""
    made_by: object = field(repr=False)
    checks: Checks | None
    """What must hold of the answer before it is released; None where the EHR answers nothing else."""
    rule: str
    """What allowed it, in codes."""

    def __post_init__(self) -> None:
        if self.made_by is not _DECIDED:
            raise TypeError("a Permit comes from policy.decide alone")


def effective_scopes(handle: Handle, grant: Grant, find_app: FindApp) -> Scopes:
    """Return what is left of the handle after its grant and the policies. Raises `InsufficientScope`."""
    return allowed_to(handle.apps, grant, find_app, held=handle.scopes)


@dataclass(frozen=True, slots=True)
class EffectiveScopes:
    """`effective_scopes`, remembered: an app that reads a patient's record asks with the same handle many times."""

    find_app: FindApp
    known: Remembered[object, Scopes] = field(default_factory=partial(Remembered, REMEMBERED))

    def __call__(self, handle: Handle, grant: Grant) -> Scopes:
        """Return them. Raises `InsufficientScope`, which is not remembered."""
        terms = grant.terms
        depends_on = handle.scopes, handle.apps, terms.scopes, terms.ehr, terms.flow, terms.registration
        if (known := self.known.get(depends_on)) is not None:
            return known
        return self.known.keep(depends_on, effective_scopes(handle, grant, self.find_app))


def allowed_to(apps: Sequence[str], grant: Grant, find_app: FindApp, *, held: Scopes | None = None) -> Scopes:
    """Return what the grant holds for an app that got it from the one before, and so on. Raises `InsufficientScope`.

    With `held`, what it holds of those: they come first, because a handle has far fewer scopes than a policy may have.
    """
    allowed = grant.terms.scopes if held is None else held.intersection(grant.terms.scopes)
    for app_id in dict.fromkeys(apps):
        allowed = allowed.intersection(_allowance(app_id, grant, find_app).scopes)
    for holder, actor in pairwise(apps):
        if not may_exchange(find_app(actor), holder):
            raise InsufficientScope(f"app {actor!r} may not exchange handles of app {holder!r}")
    return allowed


def may_exchange(app: App | None, holder: str) -> bool:
    """Whether an app may exchange handles of this one: its own, and those of the apps that its settings name."""
    return app is not None and (app.id == holder or holder in app.settings.exchange_from)


def effective_limits(handle: Handle, grant: Grant, find_app: FindApp) -> Limits | None:
    """Return what the handle is held to, by itself and by its apps' policies. Raises `InsufficientScope`."""
    limits = handle.limits
    for app_id in handle.apps:
        of_policy = _allowance(app_id, grant, find_app).limits
        if of_policy is not None:
            limits = meet((limits, of_policy))
    return limits


def _allowance(app_id: str, grant: Grant, find_app: FindApp) -> Allowance:
    app = find_app(app_id)
    if app is None:
        raise InsufficientScope(f"app {app_id!r} is not configured")
    try:
        allowance = app.allowance(grant.terms.ehr, grant.terms.flow)
    except UnauthorizedClient as error:
        raise InsufficientScope(error.detail) from None
    if allowance.registration.id != grant.terms.registration:
        raise InsufficientScope(f"app {app.id!r} may no longer use registration {grant.terms.registration!r}")
    return allowance


def decide(
    handle: Handle,
    grant: Grant,
    find_app: FindApp,
    interaction: Interaction,
    find_arrival: FindArrival | None = None,
    searchable: Searchable | None = None,
    *,
    effective: EffectiveScopes | None = None,
) -> Permit:
    """Return the permit. Raises `InsufficientScope` or another refusal whose `detail` names the rule.

    `find_arrival` is asked only where it makes a difference, and without it that is refused. `searchable` is what the
    EHR says that it can be searched by; where that makes a difference and is not given, `SearchableWanted` is raised.
    `effective` remembers what is left of scopes, by the same `find_app`.
    """
    grant.require_usable()
    scopes = effective(handle, grant) if effective else effective_scopes(handle, grant, find_app)
    if not interaction.understood:
        _require_named(interaction, handle, grant, find_app)
    limits = effective_limits(handle, grant, find_app)
    if limits is not None or handle.x5t is not None:
        arrival = find_arrival() if find_arrival else None
        require_certificate(handle, arrival)
        interaction = _limited(limits, interaction, arrival)
    terms = grant.terms
    of_any_type = limits is None or limits.types is None
    held = Held(scopes, terms.scopes, terms.context.patient, handle.patient, terms.fhir_base, of_any_type)
    if interaction.entries:
        return _decide_bundle(handle, grant, held, interaction)
    part = decide_part(held, interaction, searchable, rewritable=True)
    checks = Checks(part.shape, part.rules) if part.shape and part.rules else None
    return Permit(handle, grant, part.interaction, part.needs, part.relies_on_search, _DECIDED, checks, part.reason)


def require_certificate(handle: Handle, arrival: Arrival | None) -> None:
    """Raises `InvalidHandle` where a handle is bound to a certificate and the request came without it (RFC 8705 §3)."""
    if handle.x5t is None:
        return
    shown = arrival.x5t if arrival else None
    if handle.x5t != shown:
        what = "none was shown" if shown is None else "another one was shown"
        raise InvalidHandle(f"handle {handle.id} is bound to a certificate, and {what}")


def _limited(limits: Limits | None, interaction: Interaction, arrival: Arrival | None) -> Interaction:
    if limits is None:
        return interaction
    require_met(limits, arrival)
    return applied(limits, interaction)


def _require_named(operation: Interaction, handle: Handle, grant: Grant, find_app: FindApp) -> None:
    """Raise `UninterpretableInteraction` unless the operator named this operation for each app."""
    for app_id in dict.fromkeys(handle.apps):
        if operation.named not in _allowance(app_id, grant, find_app).operations:
            raise UninterpretableInteraction(
                "an operation whose reach is unknown, and that the app's access does not name"
            )


def _decide_bundle(handle: Handle, grant: Grant, held: Held, bundle: Interaction) -> Permit:
    """Decide each entry by itself. The Bundle goes on as it came, so no search in it can be made to say more."""
    parts = [decide_part(held, entry, (), rewritable=False) for entry in bundle.entries]
    checks = None
    if any(part.rules for part in parts):
        if any(part.shape != "resource" for part in parts):
            raise InsufficientScope("of a Bundle whose answer has to be checked every entry is a read")
        for part in parts:
            check(part)
        checks = Checks("batch", tuple(dict.fromkeys(rule for part in parts for rule in part.rules)))
    needs = tuple(need for part in parts for need in part.needs)
    reasons = " ".join(dict.fromkeys(code for part in parts for code in part.reason.split()))
    relies = any(part.relies_on_search for part in parts)
    return Permit(handle, grant, bundle, needs, relies, _DECIDED, checks, reasons)
