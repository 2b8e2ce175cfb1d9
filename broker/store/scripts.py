"""The atomic steps: each `.lua` file beside this one is one of them, and says what it does."""

from importlib.resources import files

from broker.store.connection import Script


def script(name: str) -> Script:
    """Load `lua/{name}.lua` from the package."""
    return Script(files("broker.store").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8"))
