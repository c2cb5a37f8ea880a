"""Supervisors and actors on Trio nurseries, by the rules of Erlang/OTP; knows no socket and no Phoenix."""

from . import events as events
from .actor import Actor as Actor, Continue as Continue
from .actor_ref import ActorRef as ActorRef
from .actor_timers import Timer as Timer
from .any_supervisor import AnySupervisor as AnySupervisor
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
from .dynamic_supervisor import DynamicSupervisor as DynamicSupervisor
from .exit_reason import (
    ExitKind as ExitKind,
    ExitReason as ExitReason,
    Ignore as Ignore,
    Shutdown as Shutdown,
)
from .incarnation import mark_healthy as mark_healthy
from .introspect import format_tree as format_tree
from .mailbox import Mailbox as Mailbox, MailboxStatistics as MailboxStatistics, Overflow as Overflow
from .monitor import Down as Down, Monitor as Monitor
from .pid import Pid as Pid
from .registry import Registry as Registry
from .restart_intensity import RestartIntensity as RestartIntensity
from .snapshot import ChildSnapshot as ChildSnapshot, SupervisorSnapshot as SupervisorSnapshot
from .strategy import AutoShutdown as AutoShutdown, Strategy as Strategy
from .supervisor import Supervisor as Supervisor
