"""Public tools for tests: a Layr8 node inside the test's own loop, and the streams it runs on."""

from __future__ import annotations

from .cloud_node import CAPABILITIES as CAPABILITIES, CloudNode as CloudNode
from .dispatching_channel import Dispatch as Dispatch, DispatchingChannel as DispatchingChannel
from .fault_connection import ProxiedConnection as ProxiedConnection
from .fault_flow import Conditions as Conditions
from .faults import FaultProxy as FaultProxy, ProxyStatistics as ProxyStatistics
from .memory_stream import MemoryStream as MemoryStream, memory_stream_pair as memory_stream_pair
from .node_channel import JoinCrashed as JoinCrashed, JoinReply as JoinReply, NodeChannel as NodeChannel
from .node_socket import NodeSocket as NodeSocket
from .observations import NodeStatistics as NodeStatistics, ReceivedFrame as ReceivedFrame
from .plugin_channel import PluginChannel as PluginChannel
from .raw_client import RawClient as RawClient, UpgradeRefused as UpgradeRefused
from .upgrade_request import UpgradeRequest as UpgradeRequest
