"""Lua run by the distributor."""

from __future__ import annotations

from feedmill.shared.redis.wire import Script

COMMIT = Script(
    """#!lua flags=allow-oom
local checkpoint, raw, events, commands, images, applied = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local current = redis.call('HGET', checkpoint, 'id') or ''
if current ~= ARGV[1] then return {0, current} end
if ARGV[4] ~= '' then redis.call('XTRIM', raw, 'MINID', '~', ARGV[4]) end
local stored = redis.call('HGET', applied, 'stream')
if stored then redis.call('XTRIM', events, 'MINID', '~', stored) end
local entry = ''
if ARGV[5] ~= '' then
  if ARGV[9] ~= '' then
    entry = redis.call('XADD', events, '*', 'n', ARGV[5], 'id', ARGV[6], 'p', ARGV[7], 'e', ARGV[8], 'd', ARGV[9])
  else
    entry = redis.call('XADD', events, '*', 'n', ARGV[5], 'id', ARGV[6], 'p', ARGV[7], 'e', ARGV[8])
  end
  redis.call('HSET', checkpoint, 'en', ARGV[5], 'eid', ARGV[6])
end
redis.call('HSET', checkpoint, 'id', ARGV[2], 'pos', ARGV[3])
local at = 10
local function many(command, key)
  local count = tonumber(ARGV[at])
  local first = at + 1
  at = first + count
  while first < at do
    local last = math.min(first + 1999, at - 1)
    redis.call(command, key, unpack(ARGV, first, last))
    first = last + 1
  end
end
many('HSET', checkpoint)
many('HDEL', checkpoint)
many('HSET', images)
for index = at, #ARGV do
  redis.call('XADD', commands, 'MAXLEN', '~', '1000', '*', 'c', ARGV[index])
end
return {1, entry}
"""
)
"""KEYS checkpoint, raw, events, commands, images, events:applied.

ARGV: 1 id of the commit before, 2 its own id, 3 raw position, 4 raw trim floor or empty, 5-9 number, id, id before,
events, book changes ('' = none) of the events entry (5 empty = no entry); then three counted lists: fields and values
to set, fields to delete, images to set; then commands.

-> [1, entry id or empty] | [0, id found]: somebody else committed, or the server forgot; nothing was done.

``allow-oom``: it frees before it adds, so a full server is drained rather than blocked.
"""
