"""What operations reach, as FHIR R4, US Core and IPS define them: data, one row for each operation at each type.

Whatever is not here, `$graphql` and vendors' own among it, reaches nobody knows what. It is an operator's to allow.
"""

from dataclasses import dataclass
from typing import Final

_TYPE: Final = frozenset({"type"})
_INSTANCE: Final = frozenset({"instance"})
_BOTH: Final = _TYPE | _INSTANCE
_READING: Final = frozenset({"GET", "POST"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation at one type. No parameter beside those that are listed is let through."""

    name: str
    type: str
    """`*` is any type."""
    levels: frozenset[str]
    """Where it is asked for: `system`, `type`, `instance`."""
    methods: frozenset[str] = _READING
    """By GET with a query, or by POST with a Parameters resource."""
    needs: str
    """Letters on the type."""
    needs_of_others: str = ""
    """Letters on every type, or on those that `_type` lists."""
    parameters: frozenset[str] = frozenset()
    """Those that are text, numbers and the like."""
    structures: frozenset[str] = frozenset()
    """Those that are codings and the like, which only a body can hold."""
    resources: frozenset[str] = frozenset()
    """Those that are resources, which only a body can hold."""
    about_patient: bool = False
    """Asked for at `Patient/{id}`, it answers about this patient alone."""
    bound_by: str | None = None
    """The parameter that confines the whole answer to one patient, if it is given."""
    is_search: bool = False
    """Any search parameter of the type is one of its own, too."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CODES: Final = _names("coding codeableConcept")

OPERATIONS: Final = (
    # https://hl7.org/fhir/R4/patient-operation-everything.html; the Encounter's likewise, without a period
    Operation(
        name="$everything",
        type="Patient",
        levels=_BOTH,
        needs="r",
        needs_of_others="rs",
        parameters=_names("start end _since _type _count"),
        about_patient=True,
    ),
    Operation(
        name="$everything",
        type="Encounter",
        levels=_INSTANCE,
        needs="r",
        needs_of_others="rs",
        parameters=_names("_since _type _count"),
    ),
    # https://hl7.org/fhir/R4/observation-operation-lastn.html; it takes any search parameter
    Operation(
        name="$lastn",
        type="Observation",
        levels=_TYPE,
        methods=frozenset({"GET"}),
        needs="rs",
        is_search=True,
    ),
    # http://hl7.org/fhir/us/core/OperationDefinition/docref
    Operation(
        name="$docref",
        type="DocumentReference",
        levels=_TYPE,
        needs="rs",
        parameters=_names("patient start end on-demand profile type"),
        structures=_names("type"),
        bound_by="patient",
    ),
    # https://hl7.org/fhir/R4/list-operation-find.html
    Operation(
        name="$find",
        type="List",
        levels=_TYPE,
        needs="rs",
        parameters=_names("patient name"),
        bound_by="patient",
    ),
    # http://hl7.org/fhir/uv/ips/OperationDefinition/summary
    Operation(
        name="$summary",
        type="Patient",
        levels=_BOTH,
        needs="r",
        needs_of_others="rs",
        parameters=_names("identifier profile"),
        about_patient=True,
    ),
    # https://hl7.org/fhir/R4/composition-operation-document.html, without `persist`, which stores
    Operation(
        name="$document",
        type="Composition",
        levels=_INSTANCE,
        needs="r",
        needs_of_others="r",
        parameters=_names("graph"),
    ),
    # https://hl7.org/fhir/R4/patient-operation-match.html
    Operation(
        name="$match",
        type="Patient",
        levels=_TYPE,
        methods=frozenset({"POST"}),
        needs="rs",
        parameters=_names("onlyCertainMatches count"),
        resources=_names("resource"),
    ),
    # https://hl7.org/fhir/R4/resource-operation-validate.html; it may tell whether what is referred to exists
    Operation(
        name="$validate",
        type="*",
        levels=_BOTH,
        methods=frozenset({"POST"}),
        needs="rs",
        parameters=_names("mode profile"),
        resources=_names("resource"),
    ),
    # https://hl7.org/fhir/R4/resource-operation-meta.html
    Operation(name="$meta", type="*", levels=_TYPE | {"system"}, needs="s"),
    Operation(name="$meta", type="*", levels=_INSTANCE, needs="r", about_patient=True),
    # https://hl7.org/fhir/R4/terminology-service.html
    Operation(
        name="$expand",
        type="ValueSet",
        levels=_BOTH,
        needs="rs",
        parameters=_names(
            "url valueSetVersion context contextDirection filter date offset count includeDesignations designation"
            " includeDefinition activeOnly excludeNested excludeNotForUI excludePostCoordinated displayLanguage"
            " exclude-system system-version check-system-version force-system-version"
        ),
        resources=_names("valueSet"),
    ),
    Operation(
        name="$validate-code",
        type="ValueSet",
        levels=_BOTH,
        needs="rs",
        parameters=_names(
            "url context valueSetVersion code system systemVersion display date abstract displayLanguage"
        ),
        structures=_CODES,
        resources=_names("valueSet"),
    ),
    Operation(
        name="$validate-code",
        type="CodeSystem",
        levels=_BOTH,
        needs="rs",
        parameters=_names("url code version display date abstract displayLanguage"),
        structures=_CODES,
        resources=_names("codeSystem"),
    ),
    Operation(
        name="$lookup",
        type="CodeSystem",
        levels=_TYPE,
        needs="rs",
        parameters=_names("code system version date displayLanguage property"),
        structures=_names("coding"),
    ),
    Operation(
        name="$subsumes",
        type="CodeSystem",
        levels=_BOTH,
        needs="rs",
        parameters=_names("codeA codeB system version"),
        structures=_names("codingA codingB"),
    ),
    Operation(
        name="$translate",
        type="ConceptMap",
        levels=_BOTH,
        needs="rs",
        parameters=_names("url conceptMapVersion code system version source target targetsystem reverse"),
        structures=_CODES,
        resources=_names("conceptMap"),
    ),
)
NAMES: Final = frozenset(operation.name for operation in OPERATIONS)


def find_operation(name: str, type_: str, level: str, method: str) -> Operation | None:
    """Return the row for an operation that is asked for like this, if there is one; `*` is no type."""
    rows = (row for row in OPERATIONS if row.name == name and row.type in {type_, "*"})
    return next((row for row in rows if level in row.levels and method in row.methods), None)


def is_defined(name: str, type_: str) -> bool:
    """Whether the table has an operation of this name for this type, at whatever level, by whatever method."""
    return any(row.name == name and row.type in {type_, "*"} for row in OPERATIONS)
