import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticSerializationError

from broker.secret import REDACTED, Secret

CANARY = "canary-3fb1"


@dataclass
class Holder:
    secret: Secret


class Table(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    secret: Secret


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        format,
        lambda secret: f"{secret}",
        lambda secret: f"{secret!r:>40}".strip(),
        lambda secret: f"{secret:>40}",
        "{:s}".format,
        lambda secret: "%s" % secret,  # noqa: UP031  # as above
        lambda secret: "%r" % secret,  # noqa: UP031  # as above
        lambda secret: json.dumps(secret, default=str),
        lambda secret: str([secret]),
        lambda secret: str({"token": secret}),
        lambda secret: repr(Holder(secret)),
        lambda secret: repr(Table(secret=secret)),
        lambda secret: repr(ValueError(secret)),
        lambda secret: str(Table(secret=secret).model_dump()),
    ],
)
def test_a_secret_never_shows_its_text(show: Callable[[Secret], str]) -> None:
    shown = show(Secret(CANARY))

    assert CANARY not in shown
    assert "Secret(" in shown


@pytest.mark.parametrize(
    ("serialise", "error"),
    [
        (json.dumps, TypeError),
        (pickle.dumps, TypeError),
        (copy.copy, TypeError),
        (copy.deepcopy, TypeError),
        (vars, TypeError),
        (lambda secret: asdict(Holder(secret)), TypeError),
        (lambda secret: astuple(Holder(secret)), TypeError),
        (lambda secret: Table(secret=secret).model_dump_json(), PydanticSerializationError),
    ],
)
def test_a_secret_is_not_serialised(serialise: Callable[[Secret], object], error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        serialise(Secret(CANARY))

    assert CANARY not in str(raised.value)


def test_a_traceback_with_its_local_variables_does_not_show_a_secret() -> None:
    secret = Secret(CANARY)
    try:
        raise ValueError(secret)
    except ValueError as error:
        report = traceback.TracebackException.from_exception(error, capture_locals=True)

    text = "".join(report.format())

    assert f"secret = {REDACTED}" in text
    assert CANARY not in text


def test_a_log_line_does_not_show_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("the token is %s, or %r", Secret(CANARY), Secret(CANARY))

    assert caplog.messages == [f"the token is {REDACTED}, or {REDACTED}"]


@given(st.text(), st.text())
def test_secrets_are_equal_when_their_texts_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) is (one == other)
    assert Secret(one).matches(other) is (one == other)


def test_a_secret_equals_no_text() -> None:
    assert Secret(CANARY) != CANARY


def test_text_that_is_not_unicode_is_unequal_and_no_error() -> None:
    assert not Secret(CANARY).matches("\ud800")


def test_a_secret_is_no_dictionary_key() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Secret(CANARY))


def test_a_secret_has_no_length_and_no_parts() -> None:
    for name in ("__len__", "__iter__", "__getitem__", "__contains__", "__dict__"):
        assert not hasattr(Secret(CANARY), name)


def test_the_text_is_revealed_on_request() -> None:
    assert Secret(CANARY).reveal() == CANARY


def test_the_digest_is_the_sha_256_of_the_text() -> None:
    assert Secret("abc").digest() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
