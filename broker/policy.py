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
7. and where the EHR's token reaches beyond that patient, so that the EHR will not bind the request: it binds itself
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, TypeAlias

from broker.apps import Allowance, App
from broker.compartment import binding_pairs, is_bound_by_path
from broker.errors import InsufficientScope, InvalidHandle, UnauthorizedClient, UninterpretableInteraction
from broker.grants import Grant
from broker.handles import Handle
from broker.interactions import Interaction, Need
from broker.limits import Arrival, Limits, applied, meet, require_met
from broker.scopes import Scopes

_DECIDED: Final = object()
_WIDE: Final = ("user", "system")

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
    made_by: object

    def __post_init__(self) -> None:
        if self.made_by is not _DECIDED:
            raise TypeError("a Permit comes from policy.decide alone")


def effective_scopes(handle: Handle, grant: Grant, find_app: FindApp) -> Scopes:
    """Return what is left of the handle after its grant and the policies. Raises `InsufficientScope`."""
    return allowed_to(handle.apps, grant, find_app, held=handle.scopes)


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
    handle: Handle, grant: Grant, find_app: FindApp, interaction: Interaction, find_arrival: FindArrival | None = None
) -> Permit:
    """Return the permit. Raises `InsufficientScope` or another refusal whose `detail` names the rule.

    `find_arrival` is asked only where it makes a difference, and without it that is refused.
    """
    grant.require_usable()
    scopes = effective_scopes(handle, grant, find_app)
    if not interaction.understood:
        _require_named(interaction, handle, grant, find_app)
    limits = effective_limits(handle, grant, find_app)
    if limits is not None or handle.x5t is not None:
        arrival = find_arrival() if find_arrival else None
        require_certificate(handle, arrival)
        interaction = _limited(limits, interaction, arrival)
    parts = interaction.entries or (interaction,)
    decided = [_decide_part(handle.patient, scopes, grant, part) for part in parts]
    needs = tuple(need for of_part, _ in decided for need in of_part)
    return Permit(handle, grant, interaction, needs, any(relies for _, relies in decided), _DECIDED)


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


def _decide_part(only: str | None, scopes: Scopes, grant: Grant, part: Interaction) -> tuple[tuple[Need, ...], bool]:
    """Decide one interaction, or one entry of a Bundle; returns its needs, and whether it relies on a search parameter.

    `only` is the patient that the handle was narrowed to, if it was.
    """
    relies = False
    by_patient = []
    for need in part.needs:
        if not _covers(scopes, need, _WIDE):
            if not _covers(scopes, need, ("patient",)):
                raise InsufficientScope(f"no scope covers {need.type}.{need.letter}")
            by_patient.append(need)
        relies |= bool(need.parameters) and not scopes.covers(need.type, need.letter)
    in_context = grant.terms.context.patient
    if by_patient and in_context is None:
        raise InsufficientScope("a patient/ scope without a patient in context (CX-10)")
    if only and in_context not in {None, only}:
        raise InsufficientScope("the handle was narrowed to another patient than the one in context")
    confined, patient = (part.needs, only) if only else (by_patient, in_context)
    bound = _bind_to_patient(patient, grant, part, confined) if confined and patient else []
    needs = tuple(replace(need, bound_to=patient) if need in bound else need for need in part.needs)
    return needs, relies or bool(bound)


def _covers(scopes: Scopes, need: Need, levels: tuple[str, ...]) -> bool:
    return scopes.covers(need.type, need.letter, parameters=need.parameters, levels=levels)


def _bind_to_patient(patient: str, grant: Grant, part: Interaction, needs: Iterable[Need]) -> list[Need]:
    """Return the needs that the request binds because the EHR would not."""
    if any(named != patient for named in part.patients):
        raise InsufficientScope("the request names another patient (PX-14)")
    reaching = [need for need in needs if _reaches_further(grant.terms.scopes, need)]
    for need in reaching:
        if not _binds_itself(need, part, patient):
            raise InsufficientScope("the EHR's token reaches beyond the patient, and the request is not bound to one")
    return reaching


def _reaches_further(granted: Scopes, need: Need) -> bool:
    """Whether the EHR's token opens anything of this need beyond the patient; filters do not make it narrower."""
    return any(
        scope.level in _WIDE and need.letter in scope.letters and (scope.type in {"*", need.type} or need.type == "*")
        for scope in granted.resources
    )


def _binds_itself(need: Need, part: Interaction, patient: str) -> bool:
    """Whether this need can only be about this patient, whatever the token behind it could reach.

    Of a page it is, if that was so of the search that the page goes on with (PX-07). Of an operation, where it is
    defined so.
    """
    if need.bound_to == patient:
        return True
    if part.kind == "operation":
        return bool(binding_pairs(need.type, patient) & set(need.parameters))
    if part.path == f"Patient/{patient}" or part.path.startswith(f"Patient/{patient}/_history"):
        return need.type == "Patient"
    if part.path.startswith(f"Patient/{patient}/"):
        return is_bound_by_path(need.type) and not any(_leads_elsewhere(name) for name, _ in part.parameters)
    return bool(binding_pairs(need.type, patient) & set(need.parameters))


def _leads_elsewhere(parameter: str) -> bool:
    """Whether a search parameter adds other resources, or tells something about them."""
    return parameter.partition(":")[0] in {"_include", "_revinclude", "_has"} or "." in parameter
