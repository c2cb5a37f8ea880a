"""Which refusals are for good."""

from __future__ import annotations

import pytest

from layr8_actors.channel.refusal import is_permanent, is_permanent_reason
from layr8_actors.errors import ConnectFailed, JoinRejected, TransportClosed


@pytest.mark.parametrize(
    "reason",
    [
        "e.join.plugin.protocol.missing: No protocol specified",
        "e.join.plugin.child.not-beneath-parent",
        "e.join.plugin.parent.not-found: gone",
        "plugin.child.already-persistent",
        "e.connect.plugin.failed: Plugin connection failed [{:error, :no_credentials}]",
        "invalid_api_key",
    ],
)
def test_what_only_other_options_can_mend_is_permanent(reason: str) -> None:
    assert is_permanent_reason(reason)


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "e.connect.plugin.failed: protocols_already_bound",
        "join crashed",
        "too many channels joined",
        "unmatched topic",
        "something nobody has seen before",
    ],
)
def test_what_may_pass_and_what_is_unknown_is_transient(reason: str) -> None:
    assert not is_permanent_reason(reason)


def test_http_401_and_403_are_permanent_and_other_failures_of_a_dial_are_not() -> None:
    url = "ws://node.test/socket"
    assert is_permanent(ConnectFailed(url, "refused", status=401))
    assert is_permanent(ConnectFailed(url, "refused", status=403))
    assert not is_permanent(ConnectFailed(url, "refused", status=503))
    assert not is_permanent(ConnectFailed(url, "no route"))
    assert is_permanent(JoinRejected("x", permanent=True))
    assert not is_permanent(TransportClosed(1000))
