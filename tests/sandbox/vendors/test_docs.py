"""The documentation says whom the sandbox plays and which paths control it, and nothing that is not so."""

import re
from pathlib import Path

from sandbox.app import create_app
from sandbox.oauth.id_tokens import SigningKey
from sandbox.personalities import PERSONALITIES
from sandbox.settings import Settings
from tests.sandbox.oauth.driver import ORIGIN

TEXT = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text(encoding="utf-8")


def test_the_documented_personalities_are_those_of_the_table() -> None:
    section = TEXT.partition("## Personalities")[2].partition("\n## ")[0]
    lines = dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", section, re.MULTILINE))
    assert lines == {name: personality.says for name, personality in PERSONALITIES.items()}


def test_the_documented_control_paths_are_those_there_are(signing_key: SigningKey) -> None:
    app = create_app(Settings(public_url=ORIGIN, patients=1), lambda: 0.0, signing_key=signing_key)
    paths = {re.match(r"/__\w+", getattr(route, "path", "")) for route in app.routes} - {None}
    section = TEXT.partition("## Control paths")[2].partition("\n### ")[0]
    assert set(re.findall(r"`(?:GET|POST|DELETE) (/__\w+)", section)) == {match[0] for match in paths if match}
