"""One frozen object; all reading of `broker.toml` and of the environment happens here."""

from broker.settings.deployment import Deployment
from broker.settings.load import load
from broker.settings.model import Access, AppSettings, EhrSettings, RegistrationSettings, Settings

__all__ = ["Access", "AppSettings", "Deployment", "EhrSettings", "RegistrationSettings", "Settings", "load"]
