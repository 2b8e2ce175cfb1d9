"""What is mutated, and which tests have to notice: fast ones, that need neither store nor network."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_POLICY: Final = (
    "tests/test_policy.py",
    "tests/test_policy_binding.py",
    "tests/test_policy_narrowed.py",
    "tests/release/test_granular.py",
    "tests/test_paging.py",
    "tests/bypass/test_oracle.py",
)
_INTERACTIONS: Final = (
    "tests/interactions/test_allowed.py",
    "tests/interactions/test_operations.py",
    "tests/interactions/test_operation_table.py",
    "tests/interactions/test_bundles.py",
    "tests/interactions/test_bounds.py",
    "tests/interactions/test_refused.py",
    "tests/interactions/test_properties.py",
    "tests/definitions/test_search_definitions.py",
    "tests/test_paging.py",
)
TARGETS: Final = {
    "broker/policy.py": ("tests/limits/test_applying.py", "tests/test_remembered.py", *_POLICY),
    "broker/remembered.py": ("tests/test_remembered.py",),
    "broker/compartment.py": ("tests/test_compartment.py", *_POLICY),
    "broker/limits": ("tests/limits",),
    "broker/deciding.py": _POLICY,
    "broker/part.py": ("tests/release/test_rules.py", *_POLICY),
    "broker/granular.py": ("tests/release/test_granular.py",),
    "broker/interactions/restrict.py": ("tests/release/test_granular.py", *_POLICY),
    "broker/release.py": (
        "tests/release/test_rules.py",
        "tests/release/test_check_answer.py",
        "tests/release/test_granular.py",
    ),
    "broker/membership.py": ("tests/release/test_membership.py",),
    "broker/token_parameters.py": ("tests/release/test_token_table.py", "tests/release/test_token_parameters.py"),
    "broker/elements.py": ("tests/release/test_token_parameters.py", "tests/release/test_membership.py"),
    "broker/scopes": tuple(f"tests/scopes/test_{part}.py" for part in ("grammar", "dialects", "algebra")),
    "broker/interactions/interaction.py": ("tests/limits/test_reading.py", *_INTERACTIONS, "tests/limits"),
    "broker/interactions/headers.py": (
        "tests/flows/test_fhir_request.py",
        "tests/interactions/test_export.py",
        *_INTERACTIONS,
    ),
    "broker/interactions": _INTERACTIONS,
    "broker/flows/binding.py": ("tests/flows/test_binding.py",),
}
"""Files and folders, with the tests of each."""
SLOW: Final = "test_all_searches_with_two_parameters"
"""Takes seconds, so only what survives all others is tried against it."""


def watchers_of(file: str) -> tuple[str, ...]:
    """Return the tests that have to notice a fault in this file."""
    return next(tests for target, tests in TARGETS.items() if file == target or file.startswith(f"{target}/"))


def files(chosen: list[str]) -> list[str]:
    """Return the files of the targets that were chosen, of all if none was."""
    found: list[str] = []
    for target in chosen or TARGETS:
        path = ROOT / target
        listed = sorted(path.glob("*.py")) if path.is_dir() else [path]
        found += [str(one.relative_to(ROOT)) for one in listed]
    return list(dict.fromkeys(found))
