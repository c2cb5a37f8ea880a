"""Phoenix Channels V2 without any I/O: frames, their serializer, refs, topics and the heartbeat.

This folder knows no socket, clock, logger or task. Bytes, refs and times are arguments; frames and events are results.
"""

from .frames import (
    HEARTBEAT as HEARTBEAT,
    PHOENIX_TOPIC as PHOENIX_TOPIC,
    PHX_CLOSE as PHX_CLOSE,
    PHX_ERROR as PHX_ERROR,
    PHX_JOIN as PHX_JOIN,
    PHX_LEAVE as PHX_LEAVE,
    PHX_REPLY as PHX_REPLY,
    RESERVED_EVENTS as RESERVED_EVENTS,
    Frame as Frame,
    Ref as Ref,
)
from .heartbeat import Heartbeat as Heartbeat
from .refs import Refs as Refs
from .serializer import (
    MAX_CONTAINERS as MAX_CONTAINERS,
    MAX_DEPTH as MAX_DEPTH,
    MAX_SIZE as MAX_SIZE,
    Serializer as Serializer,
)
from .topic import Topic as Topic, TopicStatus as TopicStatus
from .topic_events import (
    FrameIgnored as FrameIgnored,
    JoinMalformed as JoinMalformed,
    JoinRefused as JoinRefused,
    JoinSucceeded as JoinSucceeded,
    LeaveSucceeded as LeaveSucceeded,
    MessageReceived as MessageReceived,
    ReplyMalformed as ReplyMalformed,
    ReplyReceived as ReplyReceived,
    TopicClosed as TopicClosed,
    TopicErrored as TopicErrored,
    TopicEvent as TopicEvent,
    TopicUnmatched as TopicUnmatched,
    WhyIgnored as WhyIgnored,
)
