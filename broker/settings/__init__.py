"""One frozen object; all reading of `broker.toml` and of the environment happens here."""

from broker.settings.app import Access, AppSettings
from broker.settings.deployment import Deployment
from broker.settings.ehr import EhrSettings
from broker.settings.issuer import IssuerSettings
from broker.settings.load import load
from broker.settings.model import Settings
from broker.settings.registration import RegistrationSettings
from broker.settings.webhook import WebhookSettings

__all__ = [
    "Access",
    "AppSettings",
    "Deployment",
    "EhrSettings",
    "IssuerSettings",
    "RegistrationSettings",
    "Settings",
    "WebhookSettings",
    "load",
]
