import json
import logging
import sys
from collections.abc import Callable, Iterator
from io import StringIO

import pytest
import structlog

from broker import log
from broker.secret import REDACTED, Secret

CANARY = "canary-5e1f"
CHATTY = ("httpx2", "httpcore2", "httpx", "httpcore", "asyncio")

Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Configure logging for this test alone; returns what has been written."""
    root, access = logging.getLogger(), logging.getLogger("uvicorn.access")
    handlers, level, levels = root.handlers[:], root.level, {name: logging.getLogger(name).level for name in CHATTY}
    written = StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    log.configure()

    def read() -> list[dict[str, object]]:
        return [json.loads(line) for line in written.getvalue().splitlines()]

    yield read
    root.handlers[:] = handlers
    root.setLevel(level)
    access.disabled = False
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def test_what_we_log_is_one_line_of_json(lines: Lines) -> None:
    structlog.get_logger().warning("grant_ended", grant="ABC", generation=3)

    (line,) = lines()
    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {"event": "grant_ended", "level": "warning", "grant": "ABC", "generation": 3}


def test_a_secret_that_is_logged_stays_one(lines: Lines) -> None:
    structlog.get_logger().info("x", token=Secret(CANARY), tokens=[Secret(CANARY)], text=f"{Secret(CANARY)}")
    logging.getLogger("library").warning("%s", Secret(CANARY))

    first, second = lines()
    assert (first["token"], first["tokens"], first["text"]) == ("Secret", ["Secret"], REDACTED)
    assert second["event"] == "%s"


def test_an_exception_is_its_type_alone(lines: Lines) -> None:
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        structlog.get_logger().exception("failed")
        structlog.get_logger().error("failed", exc_info=error)
        structlog.get_logger().error("failed", error=error, stack_info=True)
        logging.getLogger("library").exception("failed")
        logging.getLogger("library").error("failed", exc_info=error, stack_info=True)  # noqa: TRY400  # as libraries do

    one, two, three, four, five = written = lines()
    assert [line.get("exception") for line in (one, two, four, five)] == ["ValueError"] * 4
    assert three["error"] == "ValueError"
    assert CANARY not in str(written)
    assert "Traceback" not in str(written)
    assert __file__ not in str(written)


@pytest.mark.parametrize(
    ("message", "arguments", "event"),
    [
        (
            "request to %s failed: %s",
            (f"https://ehr.example/?code={CANARY}", ValueError(CANARY)),
            "request to %s failed: %s",
        ),
        (f"GET https://ehr.example/r4?name={CANARY}&a=b failed", (), "GET https://ehr.example/r4?… failed"),
        (f"first\n{CANARY}", (), "first"),
        (
            f"Task exception was never retrieved\nfuture: <Task exception={CANARY!r}>",
            (),
            "Task exception was never retrieved",
        ),
        (ValueError(CANARY), (), "ValueError"),
        ({"token": CANARY}, (), "dict"),
        ("%(token)s", ({"token": CANARY},), "%(token)s"),
        ("x" * 1000, (), "x" * 300),
    ],
)
def test_a_library_is_cut_down_to_its_message_template(
    lines: Lines, message: object, arguments: tuple[object, ...], event: str
) -> None:
    logging.getLogger("library").error(message, *arguments)

    (line,) = lines()
    assert line["event"] == event
    assert CANARY not in str(line)


def test_a_line_that_cannot_be_written_is_reported_without_its_values(lines: Lines) -> None:
    structlog.get_logger("ours").info("x", values={("no", "JSON", "key"): CANARY})

    assert lines() == [{"event": "log_line_lost", "logger": "ours"}]


@pytest.mark.parametrize("name", CHATTY)
def test_libraries_that_write_urls_are_not_heard_below_warning(lines: Lines, name: str) -> None:
    logging.getLogger(name).info("HTTP Request: GET https://ehr.example/?code=%s", CANARY)
    logging.getLogger(f"{name}.child").debug(CANARY)

    assert lines() == []


def test_the_access_log_is_off(lines: Lines) -> None:
    logging.getLogger("uvicorn.access").warning("GET /callback?code=%s", CANARY)

    assert lines() == []


def test_below_the_level_nothing_is_written(lines: Lines) -> None:
    structlog.get_logger().debug("x")
    logging.getLogger("library").debug("x")

    assert lines() == []
