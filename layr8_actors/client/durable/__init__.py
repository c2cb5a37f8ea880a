"""Messages that outlive the process: persist, then acknowledge. SQLite by default, Redis Streams for many machines."""

# Which module may know which, from the bottom up:
#
#   queue              the protocol that all queues keep, their options, and what they hand out
#   events             what is reported
#   work_signal        wake-ups inside one process
#   memory             the rules in memory, for tests
#   group_commit       work that waits together is done together, in a thread
#   sqlite_file        the file: schema, versions, the lock, what errors mean
#   sqlite_statements  the rules in SQL
#   sqlite             the store over both
#   redis_scripts      the rules in Lua
#   redis_connection   the link to a server; the only module that imports coredis, and only where a store is made
#   redis              the store on Redis Streams
#   worker             the loop that claims, handles and acknowledges, over any queue

from .events import (
    DurabilityWeak as DurabilityWeak,
    DurableEvent as DurableEvent,
    HandlerFailed as HandlerFailed,
    LeaseLost as LeaseLost,
    MessageDead as MessageDead,
    MessageRedelivered as MessageRedelivered,
    StoreUnavailable as StoreUnavailable,
)
from .memory import MemoryQueue as MemoryQueue, MemoryStore as MemoryStore
from .queue import (
    Claimed as Claimed,
    DeadLetter as DeadLetter,
    DurableQueue as DurableQueue,
    QueueOptions as QueueOptions,
    QueueStatistics as QueueStatistics,
)
from .redis import RedisQueue as RedisQueue, RedisStore as RedisStore
from .sqlite import SqliteQueue as SqliteQueue, SqliteStore as SqliteStore
from .worker import RejectMessage as RejectMessage, SnoozeMessage as SnoozeMessage, run_worker as run_worker
