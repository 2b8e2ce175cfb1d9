"""JSON lines on standard error. We log codes and identifiers; what foreign code says is cut down to its kind."""

import logging
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, Final, TextIO

import structlog

Fields = MutableMapping[str, Any]
_QUERY: Final = re.compile(r"\?\S+")


class _Handler(logging.StreamHandler[TextIO]):
    """Where a line cannot be written, the standard handler would print its arguments instead."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the library's name
        with suppress(OSError, ValueError):
            self.stream.write(f'{{"event":"log_line_lost","logger":"{record.name}"}}\n')


def configure(level: str = "INFO") -> None:
    """Send all logging of this process, ours and the libraries', through one formatter."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_exception,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, cut_down],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=_kind),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx2", "httpcore2", "httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)  # at INFO they write URLs with their queries
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # that it starts and ends, we say ourselves
    logging.getLogger("uvicorn.access").disabled = True  # it writes queries: codes, states, search values


def name_exception(_: object, __: str, fields: Fields) -> Fields:
    """Replace a traceback by its exception's type: messages and frames of foreign code may hold anything."""
    fields.pop("stack_info", None)
    raised = fields.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    if isinstance(raised, tuple):
        raised = raised[1]
    if isinstance(raised, BaseException):
        fields["exception"] = type(raised).__name__
    return fields


def cut_down(_: object, __: str, fields: Fields) -> Fields:
    """Keep the first line of a library's message template, without what was filled in and without queries."""
    template = fields["_record"].msg
    text = template if isinstance(template, str) else _kind(template)
    fields["event"] = _QUERY.sub("?…", text.split("\n", 1)[0])[:300]
    return fields


def _kind(value: object) -> str:
    return type(value).__name__
