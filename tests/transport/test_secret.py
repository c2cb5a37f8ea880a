"""A secret shows itself nowhere, and is still usable."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable

import pytest

from layr8_actors.errors import InvalidOption
from layr8_actors.transport import Secret

secret = Secret("needle")


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        "{}".format,
        "{!r:>20}".format,
        "{:>20}".format,
        lambda value: f"{value}",
        lambda value: "%s %r" % (value, value),  # noqa: UP031  this way of formatting is what is tested
        lambda value: repr([value, {value: value}]),
        lambda value: repr(dir(value)),
    ],
)
def test_printing_shows_no_value(show: Callable[[object], str]) -> None:
    assert "needle" not in show(secret)


def test_value_is_revealed_only_on_request() -> None:
    assert secret.reveal() == "needle"


def test_dataclass_repr_and_asdict_show_no_value() -> None:
    @dataclasses.dataclass
    class Options:
        key: Secret

    options = Options(secret)
    assert repr(options).endswith("Options(key=***)")
    assert "needle" not in repr(dataclasses.asdict(options))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_is_refused(protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot be pickled") as caught:
        pickle.dumps(secret, protocol)
    assert "needle" not in str(caught.value)


def test_json_is_refused() -> None:
    with pytest.raises(TypeError) as caught:
        json.dumps({"key": secret})
    assert "needle" not in str(caught.value)


def test_traceback_with_locals_shows_no_value() -> None:
    def fail(key: Secret) -> None:
        wrapped = [key]
        raise RuntimeError(f"failed with {wrapped}")

    with pytest.raises(RuntimeError) as caught:
        fail(secret)
    text = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "key = ***" in text
    assert "needle" not in text


def test_logging_shows_no_value(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").error("key %s %r", secret, secret)
    assert "key *** ***" in caplog.text


def test_it_cannot_be_changed() -> None:
    for name in ("_value", "other"):
        with pytest.raises(AttributeError):
            setattr(secret, name, "x")
        with pytest.raises(AttributeError):
            delattr(secret, name)
    assert not hasattr(secret, "__dict__")


def test_equality_hash_truth_and_copies_follow_the_value() -> None:
    assert secret == Secret("needle")
    assert secret != Secret("other")
    assert secret != "needle"
    assert Secret("\ud800") != Secret("x")
    assert hash(secret) == hash(Secret("needle"))
    assert secret
    assert not Secret("")
    assert copy.copy(secret) is secret
    assert copy.deepcopy(secret) is secret


@pytest.mark.parametrize("value", [None, b"needle", 3, secret])
def test_only_a_str_is_a_secret(value: object) -> None:
    with pytest.raises(InvalidOption) as caught:
        Secret(value)  # type: ignore[arg-type]
    assert caught.value.option == "secret"
    assert "needle" not in str(caught.value)
