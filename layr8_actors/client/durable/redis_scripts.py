"""The rules of a queue in Lua, for Redis 7: each script is atomic, and all keys of a queue lie in one hash slot.

Of a queue with the stem ``layr8:{inbox}`` there are:

- ``:message:<id>``, a hash: body, key, put_at, attempts, state, and the token of its claim. Once acknowledged it is
  what remembers the id, and expires;
- ``:stream`` with the consumer group ``handlers``: the ids of what is ready or claimed. A claim is a delivery, a lease
  is its idle time;
- ``:delayed``, a sorted set of ids by when they are due;
- ``:key:<key>``, a list of the ids of one key; the first is ready, claimed or delayed, the others are blocked;
- ``:blocked``, the set of those others, to count them;
- ``:dead``, the stream of dead letters, with all their fields;
- ``:remembered``, a sorted set of ids by when they are forgotten, to count them;
- ``:tokens``, the number of claims so far.

Beside them the key ``layr8:queues`` is the set of the names of all queues that something was put into.
"""

from __future__ import annotations

__all__ = ("SCRIPTS",)

# Times are milliseconds of the server's clock: the one clock that all machines share, and the one that idle times use.
PRELUDE = """
local stem = KEYS[1]
local stream, group = stem .. ':stream', 'handlers'
local delayed, blocked, dead = stem .. ':delayed', stem .. ':blocked', stem .. ':dead'
local remembered, tokens = stem .. ':remembered', stem .. ':tokens'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function message_of(id) return stem .. ':message:' .. id end
local function list_of(key) return stem .. ':key:' .. key end

-- The first script that needs it makes it, also after somebody has emptied the server.
local function ensure_group()
  if redis.call('EXISTS', stream) == 0 then redis.call('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM') end
end

local function hand_out(id)
  ensure_group()
  local entry = redis.call('XADD', stream, '*', 'id', id)
  redis.call('HSET', message_of(id), 'state', 'ready', 'entry', entry)
end

-- At the end of its key's line, and into the stream where it is the first there.
local function line_up(id, key)
  if key ~= '' and redis.call('RPUSH', list_of(key), id) > 1 then
    redis.call('SADD', blocked, id)
    redis.call('HSET', message_of(id), 'state', 'blocked')
  else
    hand_out(id)
  end
end

local function take_out(message)
  local entry = redis.call('HGET', message, 'entry')
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
end

local function let_next(id, key)
  if key == '' then return end
  redis.call('LREM', list_of(key), 1, id)
  local heir = redis.call('LINDEX', list_of(key), 0)
  if heir and redis.call('SREM', blocked, heir) == 1 then hand_out(heir) end
end

local function held(id, token)
  local found = redis.call('HMGET', message_of(id), 'state', 'token')
  return found[1] == 'ready' and found[2] == token
end

local function give_up(id, reason)
  local message = message_of(id)
  local fields = redis.call('HMGET', message, 'key', 'body', 'attempts', 'put_at')
  take_out(message)
  local entry = redis.call('XADD', dead, '*', 'id', id, 'body', fields[2], 'key', fields[1], 'attempts', fields[3],
    'reason', reason, 'put_at', fields[4], 'died_at', now)
  redis.call('HSET', message, 'state', 'dead', 'entry', entry)
  redis.call('HDEL', message, 'body', 'token')
  let_next(id, fields[1])
  return {id, fields[3], reason}
end
"""

PUT = """
local id, body, key = ARGV[1], ARGV[2], ARGV[3]
local message = message_of(id)
if redis.call('EXISTS', message) == 1 then return 0 end
redis.call('HSET', message, 'body', body, 'key', key, 'put_at', now, 'attempts', 0)
line_up(id, key)
return 1
"""

# Leases that ran out come first, then what was delayed joins the stream, then come new deliveries.
CLAIM = """
local consumer, limit, lease, max_attempts, ran_out = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
ensure_group()
local claimed, died = {}, {}

local function take(id)
  local message = message_of(id)
  local attempts = redis.call('HINCRBY', message, 'attempts', 1)
  local token = redis.call('INCR', tokens)
  redis.call('HSET', message, 'token', token)
  local fields = redis.call('HMGET', message, 'body', 'key', 'put_at')
  claimed[#claimed + 1] = {id, fields[1], fields[2], attempts, fields[3], token}
end

local late = redis.call('XPENDING', stream, group, 'IDLE', lease, '-', '+', math.max(limit, 100))
for _, pending in ipairs(late) do
  local entry = redis.call('XRANGE', stream, pending[1], pending[1])[1]
  if not entry then
    redis.call('XACK', stream, group, pending[1])
  else
    local id = entry[2][2]
    if tonumber(redis.call('HGET', message_of(id), 'attempts')) >= max_attempts then
      died[#died + 1] = give_up(id, ran_out)
    elseif #claimed < limit then
      redis.call('XCLAIM', stream, group, consumer, 0, pending[1])
      take(id)
    end
  end
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 1000)) do
  redis.call('ZREM', delayed, id)
  hand_out(id)
end

if #claimed < limit then
  local read = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', limit - #claimed, 'STREAMS', stream, '>')
  if read then
    for _, entry in ipairs(read[1][2]) do take(entry[2][2]) end
  end
end

local next_due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
local wait = next_due and math.max(0, next_due - now) or -1
local last = '0-0'
local facts = redis.call('XINFO', 'STREAM', stream)
for at = 1, #facts, 2 do
  if facts[at] == 'last-generated-id' then last = facts[at + 1] end
end
return {claimed, died, wait, last}
"""

EXTEND = """
local id, token, consumer = ARGV[1], ARGV[2], ARGV[3]
if not held(id, token) then return 0 end
redis.call('XCLAIM', stream, group, consumer, 0, redis.call('HGET', message_of(id), 'entry'), 'JUSTID')
return 1
"""

ACKNOWLEDGE = """
local id, token, retention = ARGV[1], ARGV[2], tonumber(ARGV[3])
local message = message_of(id)
if not held(id, token) then
  local found = redis.call('HMGET', message, 'state', 'token')
  return (found[1] == 'remembered' and found[2] == token) and 1 or 0
end
take_out(message)
let_next(id, redis.call('HGET', message, 'key'))
redis.call('HSET', message, 'state', 'remembered')
redis.call('HDEL', message, 'body', 'key', 'entry')
redis.call('ZREMRANGEBYSCORE', remembered, '-inf', now)
if retention > 0 then
  redis.call('PEXPIRE', message, retention)
  redis.call('ZADD', remembered, now + retention, id)
else
  redis.call('DEL', message)
end
return 1
"""

RELEASE = """
local id, token, delay, reason, counted, max_attempts =
  ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5] == '1', tonumber(ARGV[6])
if not held(id, token) then return {0, {}} end
local message = message_of(id)
if not counted then
  redis.call('HINCRBY', message, 'attempts', -1)
elseif tonumber(redis.call('HGET', message, 'attempts')) >= max_attempts then
  return {1, {give_up(id, reason)}}
end
take_out(message)
redis.call('HDEL', message, 'token')
if delay > 0 then
  redis.call('HSET', message, 'state', 'delayed')
  redis.call('ZADD', delayed, now + delay, id)
else
  hand_out(id)
end
return {1, {}}
"""

BURY = """
local id, token, reason = ARGV[1], ARGV[2], ARGV[3]
if not held(id, token) then return {0, {}} end
return {1, {give_up(id, reason)}}
"""

RETRY_DEAD = """
local id = ARGV[1]
local message = message_of(id)
local found = redis.call('HMGET', message, 'state', 'entry', 'key')
if found[1] ~= 'dead' then return 0 end
local letter = redis.call('XRANGE', dead, found[2], found[2])[1]
if not letter then return 0 end -- trimmed by somebody else, its body is gone
redis.call('XDEL', dead, found[2])
redis.call('HSET', message, 'body', letter[2][4], 'attempts', 0)
line_up(id, found[3])
return 1
"""

DISCARD_DEAD = """
local id = ARGV[1]
local found = redis.call('HMGET', message_of(id), 'state', 'entry')
if found[1] ~= 'dead' then return 0 end
redis.call('XDEL', dead, found[2])
redis.call('DEL', message_of(id))
return 1
"""

DEAD_LETTERS = """
local letters = {}
for _, entry in ipairs(redis.call('XRANGE', dead, '-', '+', 'COUNT', ARGV[1])) do letters[#letters + 1] = entry[2] end
return letters
"""

STATISTICS = """
local claimed = 0
if redis.call('EXISTS', stream) == 1 then claimed = redis.call('XPENDING', stream, group)[1] end
return {redis.call('XLEN', stream) - claimed, redis.call('SCARD', blocked), claimed, redis.call('ZCARD', delayed),
  redis.call('XLEN', dead), redis.call('ZCOUNT', remembered, '(' .. now, '+inf')}
"""

# A consumer that holds nothing is only a name. One that does is left: deleting it would lose what it holds.
TIDY = """
local consumer, idle = ARGV[1], tonumber(ARGV[2])
if redis.call('EXISTS', stream) == 0 then return 0 end
local deleted = 0
for _, facts in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local of = {}
  for at = 1, #facts, 2 do of[facts[at]] = facts[at + 1] end
  if of['pending'] == 0 and (of['name'] == consumer or of['idle'] > idle) then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, of['name'])
    deleted = deleted + 1
  end
end
return deleted
"""

# Of the set of names, which has a key of its own.
REGISTER = """
redis.call('SADD', stem, ARGV[1])
"""

REGISTERED = """
return redis.call('SMEMBERS', stem)
"""

BODIES = {
    "put": PUT,
    "claim": CLAIM,
    "extend": EXTEND,
    "acknowledge": ACKNOWLEDGE,
    "release": RELEASE,
    "bury": BURY,
    "retry_dead": RETRY_DEAD,
    "discard_dead": DISCARD_DEAD,
    "dead_letters": DEAD_LETTERS,
    "statistics": STATISTICS,
    "tidy": TIDY,
    "register": REGISTER,
    "registered": REGISTERED,
}
SCRIPTS = {name: PRELUDE + script for name, script in BODIES.items()}
