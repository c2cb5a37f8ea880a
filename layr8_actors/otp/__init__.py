"""Supervisors and actors on Trio nurseries, by the rules of Erlang/OTP; knows no socket and no Phoenix."""

from . import events as events
from .actor import Actor as Actor, Continue as Continue
from .actor_ref import ActorRef as ActorRef
from .backoff import Backoff as Backoff
from .call import Call as Call, Reply as Reply
from .child_spec import (
    BRUTAL_KILL as BRUTAL_KILL,
    INFINITY as INFINITY,
    ChildSpec as ChildSpec,
    ChildType as ChildType,
    Restart as Restart,
)
from .children import ChildCounts as ChildCounts, ChildInfo as ChildInfo, ChildState as ChildState
from .exit_reason import (
    ExitKind as ExitKind,
    ExitReason as ExitReason,
    Ignore as Ignore,
    Shutdown as Shutdown,
)
from .introspect import format_tree as format_tree
from .mailbox import Mailbox as Mailbox, MailboxStatistics as MailboxStatistics
from .restart_intensity import RestartIntensity as RestartIntensity
from .strategy import Strategy as Strategy
from .supervisor import Supervisor as Supervisor
