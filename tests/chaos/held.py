"""A grant with a handle on it."""

from dataclasses import dataclass

from tests.chaos.fleet import Fleet


@dataclass(frozen=True)
class Held:
    """What an app has after a launch."""

    handle: str
    path: str

    @property
    def tag(self) -> str:
        """The routing tag of its grant."""
        return self.handle[4:16]


async def launched(stage: Fleet) -> Held:
    """Launch at the first replica."""
    answer = await stage.first.app.standalone()
    return Held(answer["access_token"], f"Patient/{answer['patient']}")
