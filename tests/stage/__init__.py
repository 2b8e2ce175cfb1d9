"""What every story needs: the simulated EHR as a real process, the broker on a real port, a browser, an app."""

from tests.stage.app import App
from tests.stage.broker import BrokerStage, open_stage, stage_toml
from tests.stage.browser import Browser
from tests.stage.clock import MovableClock
from tests.stage.sandbox import Sandbox, running_sandbox

__all__ = ["App", "BrokerStage", "Browser", "MovableClock", "Sandbox", "open_stage", "running_sandbox", "stage_toml"]
