"""The decision on one interaction, or on one entry of a Bundle. Pure; `policy.decide` puts these together.

What a scope covers is not yet allowed where the scope has search parameters (SC-05), or where the EHR's token reaches
beyond the patient that the handle is for (PX-14). Then, in this order:

1. the request says it itself: by its path, or by a search parameter
2. it is a search, and the broker can say it there: by a parameter that is added
3. it can be told of each resource that is answered: the permit has checks (`broker/release.py`)
4. else it is refused
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

from broker.compartment import binding_pair, binding_pairs, is_bound_by_path, is_in_compartment
from broker.errors import InsufficientScope
from broker.granular import Searchable, as_search, can_search, is_said
from broker.interactions import Interaction, Need
from broker.membership import is_shared
from broker.part import OWN, WIDE, Held, Part, is_about_others
from broker.release import Rule


class SearchableWanted(Exception):
    """What the EHR can search by has to be known to decide: the same is asked again, with that."""


def decide_part(held: Held, interaction: Interaction, searchable: Searchable | None, *, rewritable: bool) -> Part:
    """Decide. Raises `InsufficientScope`, and `SearchableWanted` where it depends on what is None here."""
    part = Part(held, interaction, rewritable)
    by_patient, filtered = [], []
    for number, need in enumerate(interaction.needs):
        if held.covers(need, WIDE):
            part.is_filtered |= held.is_filter(need)
        elif held.covers(need, OWN):
            part.is_filtered |= held.is_filter(need)
            by_patient.append(number)
        elif held.scopes.filters(need.type, need.letter, WIDE):
            filtered.append(number)
        elif held.scopes.filters(need.type, need.letter, OWN):
            filtered.append(number)
            by_patient.append(number)
        else:
            raise InsufficientScope(f"no scope covers {need.type}.{need.letter}")
    part.by = "patient-scope" if by_patient else "scope"
    _confine(part, by_patient)
    for number in filtered:
        _filter(part, number, searchable)
    _require_own_results(part, searchable)
    if part.unsaid or (held.only and part.bound and part.shape and rewritable and interaction.method != "HEAD"):
        check(part)
    return part


def _confine(part: Part, by_patient: Sequence[int]) -> None:
    """See that what is for one patient is about no other."""
    held, interaction = part.held, part.interaction
    if by_patient and held.in_context is None:
        raise InsufficientScope("a patient/ scope without a patient in context (CX-10)")
    if held.only and held.in_context not in {None, held.only}:
        raise InsufficientScope("the handle was narrowed to another patient than the one in context")
    confined = range(len(interaction.needs)) if held.only else by_patient
    part.patient = held.only or held.in_context
    if not confined or part.patient is None:
        return
    if any(named != part.patient for named in interaction.patients):
        raise InsufficientScope("the request names another patient (PX-14)")
    for number in confined:
        if held.reaches_further(interaction.needs[number]):
            _bind(part, part.patient, number)


def _bind(part: Part, patient: str, number: int) -> None:
    """See that a need is about the patient, though the EHR's token reaches further."""
    need = part.interaction.needs[number]
    if need.bound_to not in {None, patient}:
        raise InsufficientScope("the page is of another patient's search (CX-11)")
    pair = binding_pair(need.type, patient) if part.may_add(number) else None
    if _binds_itself(need, part.interaction, patient):
        part.bound.append(number)
    elif pair:
        part.add((pair,), patient=patient)
        part.bound.append(number)
    elif part.can_check(number) and (_is_for_all(part, need) or not _looks_around(part.interaction, patient, number)):
        part.unsaid.append(number)
    else:
        raise InsufficientScope("the EHR's token reaches beyond the patient, and the request is not bound to one")


def _filter(part: Part, number: int, searchable: Searchable | None) -> None:
    """See that a need stays within search parameters of the scopes that cover it."""
    need, scopes = part.interaction.needs[number], part.held.scopes
    groups = scopes.filters(need.type, need.letter, WIDE) or scopes.filters(need.type, need.letter, OWN)
    pairs = as_search(groups)
    if pairs and is_said(pairs, need.parameters):
        part.is_filtered = True
    elif pairs and part.may_add(number) and _can_search(searchable, need.type, dict(pairs + need.parameters)):
        part.add(pairs)
    elif part.can_check(number):
        part.unsaid.append(number)
    else:
        raise InsufficientScope(f"{need.type}.{need.letter} is covered with search parameters that this does not say")


def _require_own_results(part: Part, searchable: Searchable | None) -> None:
    """Have the answer checked if it may be from the results of another search, which may show more (PX-07).

    A parameter that neither FHIR defines nor the EHR lists may be a place in those, cut out of a next link: of whatever
    stands beside it the EHR would take no notice.
    """
    interaction = part.interaction
    if not interaction.unlisted or part.held.is_everything:
        return
    if interaction.kind != "search-page" and _can_search(searchable, interaction.type or "*", interaction.unlisted):
        part.interaction = replace(interaction, unlisted=())
        return
    part.unsaid = list(range(len(interaction.needs)))


def check(part: Part) -> None:
    """Have each resource of the answer checked. Raises `InsufficientScope` where that cannot tell anything."""
    interaction = part.interaction
    if interaction.method == "HEAD":
        raise InsufficientScope("an answer without a body cannot be checked")
    if any(name == "_elements" or (name == "_summary" and value != "false") for name, value in interaction.parameters):
        raise InsufficientScope(
            "what has to be checked would be left out of the answer",
            public="Ask without _elements and _summary: the answer has to be checked.",
        )
    rules = [_rules(part, need) for need in interaction.needs]
    opened = [frozenset(replace(rule, type="*") for rule in of_need) for of_need in rules]
    for number in part.unsaid:
        _require_none_wider(interaction.needs, opened, number)
    part.rules = tuple(dict.fromkeys(chain.from_iterable(rules)))


def _require_none_wider(needs: Sequence[Need], opened: Sequence[frozenset[Rule]], number: int) -> None:
    """Raise where what a search finds would be released because it may be read: an answer does not tell them apart."""
    searched = needs[number]
    for need, others in zip(needs, opened, strict=True):
        is_of_same = need.type == searched.type or "*" in {need.type, searched.type}
        if (searched.letter, need.letter) == ("s", "r") and is_of_same and not others <= opened[number]:
            raise InsufficientScope(f"of {searched.type} more may be read than searched, and the answer may hold both")


def _rules(part: Part, need: Need) -> Sequence[Rule]:
    """Return what opens resources to one need: where the request says all, the search has filtered already."""
    rules = part.held.rules(need)
    told = rules if part.unsaid else tuple(replace(rule, filters=()) for rule in rules)
    able = [rule for rule in told if rule.can_allow()]
    if not able:
        raise InsufficientScope(f"nothing in an answer would show that {need.type}.{need.letter} covers it")
    return able


def _can_search(searchable: Searchable | None, type_: str, names: Iterable[str]) -> bool:
    if searchable is None:
        raise SearchableWanted
    return can_search(searchable, type_, names)


def _is_for_all(part: Part, need: Need) -> bool:
    """Whether the need is about what is nobody's, and not only for a patient's sake."""
    return is_shared(need.type) and bool(part.held.scopes.filters(need.type, need.letter, WIDE))


def _looks_around(part: Interaction, patient: str, number: int) -> bool:
    """Whether the EHR would look at other patients' data for it, so that even an empty answer tells of them."""
    if _is_in_own_compartment(part.needs[number], part, patient):
        return False
    if part.kind == "operation":
        return part.id is None and not binding_pairs(part.needs[number].type, patient) & set(part.parameters)
    return part.needs[number].letter == "s" and (number == 0 or part.kind == "search-system")


def _binds_itself(need: Need, part: Interaction, patient: str) -> bool:
    """Whether this need can only be about this patient, whatever the token behind it could reach.

    Of a page it is, if that was so of the search that the page goes on with (PX-07). Of an operation, where it is
    defined so.
    """
    if need.bound_to == patient:
        return True
    if part.path == f"Patient/{patient}" or part.path.startswith(f"Patient/{patient}/_history"):
        return need.type == "Patient"
    if _is_in_own_compartment(need, part, patient) and is_bound_by_path(need.type):
        return True
    return bool(binding_pairs(need.type, patient) & set(need.parameters))


def _is_in_own_compartment(need: Need, part: Interaction, patient: str) -> bool:
    """Whether this need is a search of what the patient's compartment holds, and of nothing else."""
    is_own = part.kind == "search-compartment" and part.path.startswith(f"Patient/{patient}/")
    return is_own and is_in_compartment(need.type) and not any(_leads_elsewhere(name) for name, _ in part.parameters)


def _leads_elsewhere(parameter: str) -> bool:
    """Whether a search parameter adds other resources, or tells something about them."""
    return parameter.partition(":")[0] in {"_include", "_revinclude"} or is_about_others(parameter)
