"""CORS on its own; what pages can read of a running broker is in tests/onc/test_cors.py."""

from broker.web.cors import Cors


def test_what_is_not_options_is_no_pre_flight_whatever_else_it_says() -> None:
    """CO-01: every request passes here, and only the rare one is looked into."""
    assert Cors(()).preflight({"type": "http", "method": "GET"}) is None
