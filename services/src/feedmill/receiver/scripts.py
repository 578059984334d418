"""Lua run by the receiver. Both scripts stay within one shard's hash tag."""

from __future__ import annotations

from feedmill.shared.redis.wire import Script

APPEND = Script(
    """#!lua
local last = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
local n = tonumber(ARGV[2])
if n <= last then return {0, last} end
if n ~= last + 1 then return {-1, last} end
redis.call('XADD', KEYS[1], '*', 'b', ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return {1, n}
"""
)
"""KEYS raw, raw:sessions; ARGV session, n, payload. -> [1 appended | 0 have it | -1 not the next, last n].

No ``allow-oom``: a full server refuses the script before it does anything, so XADD and HSET are one.
"""

CONFIRM = Script(
    """#!lua
local last = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if last < tonumber(ARGV[2]) then return {0, last} end
redis.call('SET', KEYS[1], ARGV[2], 'EX', 3600)
return {1, last}
"""
)
"""KEYS confirm marker, raw:sessions; ARGV session, n. -> [1 still knows n and wrote the marker | 0 forgot, last n].

The write makes this connection's WAITAOF wait for everything the server did before it, batch n included; the check
keeps a server that restarted without batch n from confirming it.
"""
