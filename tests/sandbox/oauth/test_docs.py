"""The documentation names everything there is, and nothing that is not."""

import re
from pathlib import Path

from sandbox.faults import FAULTS, FOREVER
from sandbox.oauth.clients import Client
from sandbox.options import parse

TEXT = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text(encoding="utf-8")


def test_the_documented_faults_are_those_of_the_table() -> None:
    section = TEXT.partition("## Faults")[2]
    lines = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", section, re.MULTILINE))
    assert lines == {fault.name: fault.says + ("; until deleted" if fault.times == FOREVER else "") for fault in FAULTS}


def test_the_documented_options_are_those_of_the_program() -> None:
    documented = {name.replace("-", "_") for name in re.findall(r"--([a-z][a-z0-9-]*)", TEXT.partition("## People")[0])}
    assert documented == set(vars(parse([])))


def test_the_documented_members_of_a_client_are_those_it_can_have() -> None:
    section = TEXT.partition("| member |")[2].partition("\n\n")[0]
    documented = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in section.splitlines()[2:])))
    assert documented == set(Client.__dataclass_fields__)
