"""Layr8 channels for Python and Trio: Phoenix Channels V2 under an OTP-style supervision tree."""

# Which folder may know which. Imports run one way only, from the bottom of this list to its top:
#
#   errors       every exception; knows nothing
#   telemetry    typed events and the one hook they leave through; knows errors
#   phoenix      Phoenix Channels V2 without I/O; knows the above, and neither Trio nor a clock
#   otp          supervisors and actors on Trio nurseries; knows errors and telemetry, and no Phoenix
#   transport    the WebSocket port and its adapters; knows errors and telemetry, neither phoenix nor otp
#   channel      Connection, Heartbeat, Router, Reconnector and their tree; knows all the above
#   client       handlers, requests and messages on a channel; knows all the above
#   blocking     the client for scripts and threads; knows client
#   testing      CloudNode, a node in the process, for our tests and our users'
#   cli          the commands; the only folder that needs the cli extra
#
# This file is the facade: it re-exports what users need of all but testing and cli, and none of them imports it.
# import-linter (`make check`, [tool.importlinter] in pyproject.toml) holds this.

from __future__ import annotations

import logging

from .channel import (
    ApiKeyProvider as ApiKeyProvider,
    Callbacks as Callbacks,
    Channel as Channel,
    ChannelOptions as ChannelOptions,
    ChannelState as ChannelState,
    ChannelStatistics as ChannelStatistics,
    JoinedTopic as JoinedTopic,
    LinkStatus as LinkStatus,
    MessageStream as MessageStream,
    Reply as Reply,
    open_channel as open_channel,
)
from .client import (
    PASS as PASS,
    Attachment as Attachment,
    Client as Client,
    ClientConfig as ClientConfig,
    ClientStatistics as ClientStatistics,
    Delegation as Delegation,
    DelegationStatus as DelegationStatus,
    Message as Message,
    Pass as Pass,
    TraceContext as TraceContext,
)
from .errors import (
    AlreadyConnected as AlreadyConnected,
    ChannelClosed as ChannelClosed,
    ConnectFailed as ConnectFailed,
    Disconnected as Disconnected,
    HandlerTimeout as HandlerTimeout,
    InvalidBody as InvalidBody,
    InvalidOption as InvalidOption,
    JoinRejected as JoinRejected,
    JoinTimeout as JoinTimeout,
    Layr8Error as Layr8Error,
    LocalProtocolError as LocalProtocolError,
    MalformedMessage as MalformedMessage,
    NotConnected as NotConnected,
    ProblemReportError as ProblemReportError,
    ProtocolError as ProtocolError,
    RemoteProtocolError as RemoteProtocolError,
    ReplyTimeout as ReplyTimeout,
    RequestTimeout as RequestTimeout,
    RestartLimitExceeded as RestartLimitExceeded,
    ServerReject as ServerReject,
    TopicDown as TopicDown,
    TransportClosed as TransportClosed,
)
from .otp import Backoff as Backoff

__version__ = "0.1.0"

# A library must not print on its own account: without this, a program that configured no logging would see our errors
# on stderr through logging's last resort.
logging.getLogger("layr8_actors").addHandler(logging.NullHandler())
