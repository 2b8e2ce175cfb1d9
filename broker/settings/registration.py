"""`[[registration]]`: the broker's client registration at an EHR."""

from typing import Any, Literal

from pydantic import Field, model_validator

from broker.secret import Secret
from broker.settings.ehr import Environment
from broker.settings.fields import Identifier, ScopeText, Table

EhrAuthentication = Literal["none", "client_secret_basic", "private_key_jwt"]


class RegistrationSettings(Table):
    """`[[registration]]`: the broker's client registration at one EHR, or at one vendor's many."""

    id: Identifier
    ehr: tuple[Identifier, ...] = Field(min_length=1)
    """One id, or a list of them."""
    environment: Environment = "production"
    flow: Literal["launch", "backend"]
    client_id: str = Field(min_length=1, max_length=512)
    authentication: EhrAuthentication = "private_key_jwt"
    client_secret: Secret | None = None
    """A reference, `env:NAME` or `file:PATH`; required with, and only with, client_secret_basic."""
    signing_algorithm: Literal["ES384", "RS384"] = "ES384"
    scopes: ScopeText
    app: Identifier | None = None
    """The app that an EHR launch at `/launch/{registration}` opens."""

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, table: Any) -> Any:
        one = isinstance(table, dict) and isinstance(table.get("ehr"), str)
        return {**table, "ehr": (table["ehr"],)} if one else table

    @model_validator(mode="after")
    def _consistent(self) -> "RegistrationSettings":
        if (self.authentication == "client_secret_basic") != (self.client_secret is not None):
            raise ValueError("client_secret is needed with authentication = 'client_secret_basic', and only with it")
        if self.flow == "backend" and self.authentication != "private_key_jwt":
            raise ValueError("flow = 'backend' needs authentication = 'private_key_jwt' (SMART Backend Services)")
        if self.flow == "backend" and self.app is not None:
            raise ValueError("app belongs to flow = 'launch'; a backend registration is never launched")
        if not self.scopes:
            raise ValueError("scopes is empty: a registration without scopes can get no token")
        return self
