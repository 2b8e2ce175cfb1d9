"""What a browser shows to prove that it is the one that a launch began in (CB-02, AL-22)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

TAB_KEY: Final = "tab_key"
"""The form field in which a page of the broker's own posts what its tab has kept."""


@dataclass(frozen=True, slots=True)
class Presented:
    """Cookies, or what a page of the broker's own found in its tab."""

    cookies: Mapping[str, str] = field(repr=False)
    tab_key: str | None = field(default=None, repr=False)
    """None when the tab was not asked; it has said something when it was."""

    def proof(self, name: str) -> str | None:
        """Return the proof for the launch of that cookie name, if there is one."""
        return self.cookies.get(name) or self.tab_key

    def may_lie_in_tab(self, name: str, frame_ancestors: tuple[str, ...]) -> bool:
        """Whether the tab should be asked: a launch that may be embedded came back without its cookie."""
        return bool(frame_ancestors) and self.proof(name) is None


@dataclass(frozen=True, slots=True)
class AskTab:
    """Let a page look in its tab for the proof, and ask again with what it finds."""

    name: str
    """What the tab keeps the proof under."""
    parameters: Mapping[str, str] = field(repr=False)
    frame_ancestors: tuple[str, ...]
