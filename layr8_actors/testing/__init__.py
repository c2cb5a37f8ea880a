"""Public tools for tests: a Layr8 node inside the test's own loop, and the streams it runs on."""

from __future__ import annotations

from .cloud_node import CAPABILITIES as CAPABILITIES
from .cloud_node import CloudNode as CloudNode
from .memory_stream import MemoryStream as MemoryStream
from .memory_stream import memory_stream_pair as memory_stream_pair
from .node_channel import JoinCrashed as JoinCrashed
from .node_channel import JoinReply as JoinReply
from .node_channel import NodeChannel as NodeChannel
from .node_socket import NodeSocket as NodeSocket
from .observations import NodeStatistics as NodeStatistics
from .observations import ReceivedFrame as ReceivedFrame
from .plugin_channel import PluginChannel as PluginChannel
from .raw_client import RawClient as RawClient
from .raw_client import UpgradeRefused as UpgradeRefused
from .upgrade_request import UpgradeRequest as UpgradeRequest
