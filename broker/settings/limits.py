"""`[app.limits]` and `[app.access.limits]`: what every handle of an app is held to, beside its scopes."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from broker.limits import Limits, canonical, read_interaction, read_network, read_type
from broker.limits.reading import LARGEST_COUNT
from broker.settings.fields import Table

FhirType = Annotated[str, AfterValidator(read_type)]
InteractionName = Annotated[str, AfterValidator(read_interaction)]
CallerNetwork = Annotated[str, AfterValidator(lambda text: str(read_network(text)))]


class LimitSettings(Table):
    """Asked at each use, so what is added or taken away here holds for handles that are already out."""

    types: tuple[FhirType, ...] | None = None
    interactions: tuple[InteractionName, ...] | None = None
    max_count: int | None = Field(default=None, ge=1, le=LARGEST_COUNT)
    read_only: bool = False
    network: tuple[CallerNetwork, ...] | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> "LimitSettings":
        if (empty := self.value.empty) is not None:
            raise ValueError(f"{empty} is an empty list, which allows nothing. Fix: name some, or take the key away")
        if self.value == Limits():
            raise ValueError("limits nothing. Fix: name a limit, or take the table away")
        return self

    @property
    def value(self) -> Limits:
        """The limits themselves."""
        return Limits(
            types=None if self.types is None else frozenset(self.types),
            interactions=None if self.interactions is None else frozenset(self.interactions),
            max_count=self.max_count,
            read_only=self.read_only,
            network=None if self.network is None else canonical(map(read_network, self.network)),
        )
