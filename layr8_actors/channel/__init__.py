"""The channel to a Layr8 cloud-node: four actors, an inbox, and the tree that supervises them."""

from . import events as events
from .block import open_channel as open_channel
from .channel import Channel as Channel
from .joined_topic import JoinedTopic as JoinedTopic
from .link_state import LinkStatus as LinkStatus
from .message_stream import MessageStream as MessageStream
from .options import ApiKeyProvider as ApiKeyProvider, Callbacks as Callbacks, ChannelOptions as ChannelOptions
from .reply import Reply as Reply
from .statistics import ChannelState as ChannelState, ChannelStatistics as ChannelStatistics
