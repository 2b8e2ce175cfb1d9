"""What the pages name exists: links, paths, rooms, decisions, commands of `./run`."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.pages import PAGES, ROOT, read, rows


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


def links() -> Iterator[tuple[Path, str]]:
    for path in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if not target.startswith(("https://", "http://", "mailto:")):
                yield path, target


def test_every_relative_link_leads_somewhere() -> None:
    found = list(links())
    assert len(found) > 20
    for path, target in found:
        name, _, anchor = target.partition("#")
        aim = (path.parent / name).resolve() if name else path
        assert aim.exists(), f"{path.name} links to {target}"
        if anchor:
            assert anchor in anchors(aim.read_text(encoding="utf-8")), f"{path.name} links to {target}"


def test_every_path_that_a_page_names_exists() -> None:
    named = [
        (path, name)
        for path in PAGES
        for name in re.findall(r"`((?:broker|sandbox|tests|docs)/[A-Za-z0-9_./-]*)`", path.read_text(encoding="utf-8"))
    ]
    assert len(named) > 50
    for path, name in named:
        assert (ROOT / name).exists(), f"{path.name} names {name}"


def test_every_room_is_in_the_architecture() -> None:
    table = " ".join(row[0] for row in rows(read("docs/architecture.md"), "Room | What it does"))
    rooms = {path.parent.name + "/" for path in ROOT.glob("broker/*/__init__.py")}
    rooms |= {path.name for path in ROOT.glob("broker/*.py") if not path.name.startswith("__")}

    assert {name.removeprefix("broker/") for name in re.findall(r"`([^`]+)`", table)} == rooms | {"sandbox/"}


def test_every_decision_is_in_the_index() -> None:
    files = {path.name for path in ROOT.glob("docs/adr/0*.md")}

    assert set(re.findall(r"\]\((0[^)]+)\)", read("docs/adr/README.md"))) == files
    for name in files:
        titles = re.findall(r"^## (.+)$", read(f"docs/adr/{name}"), re.MULTILINE)
        assert titles == ["Context", "Options", "Decision", "Consequences"], name


def test_the_two_commands_of_the_readme_exist() -> None:
    named = set(re.findall(r"^\./run ([a-z]+)", read("README.md"), re.MULTILINE))

    assert named == {"demo", "test"}
    assert named <= set(re.findall(r"^  ([a-z]+)\) install", read("run"), re.MULTILINE))


def test_the_runs_that_pages_name_exist() -> None:
    commands = set(re.findall(r"^  ([a-z]+)\)", read("run"), re.MULTILINE))
    for path in PAGES:
        named = set(re.findall(r"\./run ([a-z]+)", path.read_text(encoding="utf-8")))
        assert named <= commands, path.name


def test_the_licence_is_the_unmodified_text_of_apache_2() -> None:
    # Of https://www.apache.org/licenses/LICENSE-2.0.txt
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()

    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
