"""What we decided about the shape of the house, kept by a machine. Layers are import-linter's business."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = ("broker", "sandbox")
LONGEST_MODULE = 300
LONGEST_FUNCTION = 50
REVEALING = {
    "broker/cli/apps.py",  # prints a new app secret, once
    "broker/cli/grants.py",  # prints a link, once
    "broker/cli/demo/stage.py",
    "broker/cli/demo/story.py",
    "broker/credentials.py",
    "broker/dpop.py",
    "broker/ehr/bulk_server.py",
    "broker/ehr/authorization.py",
    "broker/ehr/client_auth.py",
    "broker/ehr/dynamic_client.py",
    "broker/ehr/fhir_server.py",
    "broker/ehr/id_token.py",
    "broker/ehr/packed.py",
    "broker/ehr/rewriting.py",
    "broker/ehr/token_endpoint.py",
    "broker/ehr/unverified.py",
    "broker/flows/answer_app.py",
    "broker/flows/finish_launch.py",
    "broker/flows/exchange_handle.py",
    "broker/flows/issue_handle.py",
    "broker/flows/offer_reauthorization.py",
    "broker/ehr/introspection.py",
    "broker/grants/sealing.py",
    "broker/kms/transit_server.py",
    "broker/keys/rings.py",
    "broker/keys/secrets.py",
    "broker/keys/signing.py",
    "broker/launches.py",
    "broker/secret.py",
    "broker/settings/webhook.py",
    "broker/store/address.py",
    "broker/store/embedded.py",
    "broker/web/redirects.py",
}
DRAWERS = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "core",
    "manager",
    "service",
    "services",
    "base",
    "misc",
    "types",
}
INDEX_HOSTS = re.compile(
    "|".join(("py" + r"pi\.", "python" + r"hosted\.", "arti" + "factory", "dev" + "pi", "nex" + r"us\."))
)


def modules(*programs: str) -> list[str]:
    found = sorted(str(path.relative_to(ROOT)) for program in programs for path in (ROOT / program).rglob("*.py"))
    assert len(found) > 50, "the search found too little to prove anything"
    return found


def parsed(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


tree = cache(parsed)
"""For the programs, which are walked often; all the tests' would be a tenth of a gigabyte to the end."""


@cache
def imports(module: str) -> frozenset[str]:
    """Return the full names of what a module imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def importing(package: str, *programs: str) -> set[str]:
    return {
        module
        for module in modules(*programs)
        if any(name == package or name.startswith(f"{package}.") for name in imports(module))
    }


def functions(module: str) -> Iterator[tuple[str, int]]:
    """Yield each function's name and how many lines its body has, docstring left out."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield node.name, (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def locked(name: str) -> dict[str, str]:
    """Return the packages of a lock and their versions."""
    text = (ROOT / ".ci" / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    packages = dict(re.findall(r"^([a-z0-9.-]+)(?:\[.*\])?==(\S+)", text, re.MULTILINE))
    assert packages
    return packages


def tracked_files() -> list[Path]:
    """Return the files of the repository, new ones included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_only_these_modules_reveal_a_secret() -> None:
    revealing = {
        module
        for module in modules("broker")
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and node.attr == "reveal"
    }

    assert revealing == REVEALING


def test_only_egress_sends_requests() -> None:
    assert importing("httpx2", "broker") == {f"broker/egress/{name}.py" for name in ("connecting", "egress", "trust")}


@pytest.mark.parametrize("library", ["httpx", "requests", "aiohttp", "urllib.request", "http.client", "urllib3"])
def test_no_other_way_out_is_used_but_by_the_sdk_and_the_demo(library: str) -> None:
    elsewhere = {
        module
        for module in importing(library, "broker")
        if not module.startswith(("broker/client/", "broker/cli/demo/"))
    }

    assert elsewhere == set()


def test_the_broker_does_not_load_the_deprecated_jose() -> None:
    """Authlib's own JOSE is deprecated in favour of joserfc."""
    code = "import sys, broker.app; print([name for name in sys.modules if name.startswith('authlib.jose')])"
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, check=True)

    assert ran.stdout == b"[]\n"


def test_fhir_models_are_r4b_alone() -> None:
    """The default models of fhir.resources are R5; R4 data does not fit them."""
    used = {name for module in modules(*PROGRAMS, "tests") for name in imports(module) if name.startswith("fhir.")}

    assert {name for name in used if not name.startswith("fhir.resources.R4B.")} == set()


@pytest.mark.parametrize(("program", "other"), [("broker", "sandbox"), ("sandbox", "broker")])
def test_broker_and_sandbox_share_no_code(program: str, other: str) -> None:
    assert importing(other, program) == set()


def test_there_are_no_drawers() -> None:
    names = {part for module in modules(*PROGRAMS) for part in Path(module).with_suffix("").parts}

    assert names & DRAWERS == set()


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {module: len((ROOT / module).read_text().splitlines()) for module in modules(*PROGRAMS)}

    assert {module: length for module, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_no_function_is_longer_than_50_lines() -> None:
    long = {
        f"{module} {name}": length
        for module in modules(*PROGRAMS)
        for name, length in functions(module)
        if length > LONGEST_FUNCTION
    }

    assert not long


def test_nothing_is_swallowed() -> None:
    silent = {
        module
        for module in modules(*PROGRAMS)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ExceptHandler) and (node.type is None or isinstance(node.body[0], ast.Pass))
    }

    assert not silent


def test_nothing_is_left_to_do() -> None:
    words = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    left = [
        path for path in tracked_files() if path.suffix in {".py", ".toml", ".lua", ""} and words.search(text_of(path))
    ]

    assert left == []


@pytest.mark.parametrize("lock", sorted(path.stem for path in (ROOT / ".ci" / "locks").glob("*.txt")))
def test_every_lock_is_part_of_the_test_lock(lock: str) -> None:
    """What is tested is what runs, version for version."""
    assert locked(lock).items() <= locked("test").items()


def test_no_file_names_a_package_index() -> None:
    naming = [str(path.relative_to(ROOT)) for path in tracked_files() if INDEX_HOSTS.search(text_of(path))]

    assert naming == []


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
