"""Layr8 channels for Python and Trio: Phoenix Channels V2 under an OTP-style supervision tree."""

# Which folder may know which. Imports run one way only, from the bottom of this list to its top:
#
#   errors       every exception; knows nothing
#   telemetry    typed events and the one hook they leave through; knows errors
#   phoenix      Phoenix Channels V2 without I/O; knows the above, and neither Trio nor a clock
#   otp          supervisors and actors on Trio nurseries; knows errors and telemetry, and no Phoenix
#   transport    the WebSocket port and its adapters; knows errors and telemetry, neither phoenix nor otp
#   channel      Connection, Heartbeat, Router, Reconnector and their tree; knows all the above
#   testing      CloudNode, a node in the process, for our tests and our users'
#   cli          the commands; the only folder that needs the cli extra
#
# This file is the facade: it re-exports what users need of all but testing and cli, and none of them imports it.
# import-linter (`make check`, [tool.importlinter] in pyproject.toml) holds this.

from __future__ import annotations

__version__ = "0.1.0"
