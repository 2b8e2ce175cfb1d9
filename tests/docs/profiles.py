"""Write the two tables of profiles in docs/configuration.md: `./run python -m tests.docs.profiles`."""

import json
import tomllib
from importlib.resources import files
from typing import Any, Final, get_args

from broker.profiles import Profile, profile_names
from tests.docs.pages import ROOT

PAGE: Final = "docs/configuration.md"
BEGIN: Final = "<!-- made by: ./run python -m tests.docs.profiles -->\n"
END: Final = "<!-- end -->\n"


def tables() -> str:
    """Return both tables: what each setting means, and what each profile says, with its source."""
    meanings = (f"| `{name}` | {_choices(name)} | {_meaning(name)} |" for name in Profile.model_fields)
    said = (
        f"| {_file(profile)['title']} | `{profile}` | `{name}` | `{json.dumps(entry['value'])}` | {entry['source']} |"
        for profile in sorted(profile_names(), key=lambda name: (name != "generic", name))
        for name, entry in _file(profile)["settings"].items()
    )
    return "\n".join(
        [
            "| Setting | Values | Meaning |",
            "| --- | --- | --- |",
            *meanings,
            "",
            "| Vendor | Profile | Setting | Value | Source |",
            "| --- | --- | --- | --- | --- |",
            *said,
            "",
        ]
    )


def _file(profile: str) -> dict[str, Any]:
    return tomllib.loads(files("broker.profiles").joinpath(f"{profile}.toml").read_text(encoding="utf-8"))


def _choices(name: str) -> str:
    annotation = Profile.model_fields[name].annotation
    words = [word for choice in (annotation, *get_args(annotation)) for word in get_args(choice) or [choice]]
    texts = list(dict.fromkeys(f'`"{word}"`' for word in words if isinstance(word, str)))
    if any(isinstance(choice, type) and issubclass(choice, str) for choice in words) and texts:
        texts.append("a URL")
    plain = {bool: "boolean", int: "whole number"}
    return ", ".join(texts) if texts else plain.get(annotation, "list of texts")  # type: ignore[arg-type]  # of Any


def _meaning(name: str) -> str:
    return str(Profile.model_fields[name].description).replace("\n", " ").rstrip(".")


def written(page: str) -> str:
    """Return the page with the tables as they are now."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + tables() + END + rest.partition(END)[2]


if __name__ == "__main__":
    path = ROOT / PAGE
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
