"""How many values a JSON text has at most, told before it is read: reading them is what takes long, not the text."""

from typing import Final

MOST_VALUES: Final = 250_000
"""In a text that is read as a whole. What is read at once and looked through takes two tenths of a second at worst, and
nobody else is served meanwhile."""
_BEGINNINGS: Final = ",[{"
"""Before each value stands one of them, or a colon. Those within strings count, too."""


def has_too_many_values(text: str, most: int = MOST_VALUES) -> bool:
    """Whether it may have more than `most`."""
    return sum(map(text.count, _BEGINNINGS)) > most
