"""How a fleet's budget counts in Redis: a token bucket, or the venue's own windows. Scripts go by the server's clock.

**Bucket**: nothing is known of the venue's windows, so *any* window must keep the limit. Burst and refill of one window
add up: half of the limit may go at once and the other half trickles in.

**Windows**: the venue counts by windows that begin with the clock (each minute of it) and says in every answer what it
has counted. Then the whole limit may be spent at once, and again in the next window: twice as much at once, and twice
as much in the long run. Nothing is spent close to where one window ends and the next begins, so that neither the way
to the venue nor a clock that is a little off moves a request into another window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from feedmill.shared.redis.wire import Script

US = 1_000_000

BUCKET = Script("""#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local op, capacity, rate, amount = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local kept = redis.call('HMGET', KEYS[1], 'level', 'at', 'blocked')
local level, at, blocked = tonumber(kept[1]) or capacity, tonumber(kept[2]) or now, tonumber(kept[3]) or 0
level = math.min(capacity, level + math.max(0, now - at) * rate / 1000000)
local taken, wait = 1, 0
if op == 'take' then
  if blocked > now then
    taken = 0
  else
    level = level - amount
    wait = math.ceil(math.max(0, -level) / rate * 1000000)
  end
elseif op == 'give' then
  level = math.min(capacity, level + amount)
elseif op == 'left' then
  level = math.min(level, amount)
elseif op == 'block' then
  blocked = math.max(blocked, now + math.ceil(amount * 1000000))
end
if op ~= 'look' then
  redis.call('HSET', KEYS[1], 'level', string.format('%.6f', level), 'at', string.format('%.0f', now),
    'blocked', string.format('%.0f', blocked))
  local still = math.max(0, capacity - level) / rate * 1000 + math.max(0, blocked - now) / 1000
  redis.call('PEXPIRE', KEYS[1], math.ceil(still) + 1000)
end
return {taken, wait, math.max(0, blocked - now)}
""")
"""KEYS bucket; ARGV take | give | left | block | look, capacity, rate a second, amount (tokens; of block: seconds).

-> [1 | 0 blocked, nothing taken; us to wait before what was taken may be spent; us the block lasts]. A bucket that is
full and not blocked is no key.
"""

WINDOWS = Script("""#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local op, capacity, window, amount = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local margin, extra = tonumber(ARGV[5]), tonumber(ARGV[6])
local kept = redis.call('HMGET', KEYS[1], 'index', 'used', 'blocked', 'since')
local index, used, blocked = tonumber(kept[1]) or -1, tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
local since = tonumber(kept[4]) or -1
local here = math.floor((now + margin) / window)
if index < here then
  index, used, since = here, 0, -1
end
local taken, wait = 1, 0
if op == 'take' then
  if blocked > now then
    taken = 0
  elseif since >= 0 and index == here and used + amount > capacity then
    taken, wait = 0, 100000
  else
    if used > 0 and used + amount > capacity then
      index, used, since = index + 1, 0, -1
    end
    used = used + amount
    if since >= 0 then
      since = since + amount
    end
    wait = math.max(0, index * window + margin - now)
  end
elseif op == 'give' then
  if index == extra then
    used = math.max(0, used - amount)
  end
elseif op == 'left' then
  if math.floor((now - extra) / window) == index and math.floor(now / window) == index then
    local spent = capacity - math.max(0, math.min(capacity, amount))
    if since >= 0 then
      used = math.min(used, spent + since)
    end
    used, since = math.max(used, spent), -1
  end
elseif op == 'lost' then
  if index == here then
    used, since = math.max(used, capacity - amount), 0
  end
elseif op == 'block' then
  blocked = math.max(blocked, now + math.ceil(amount * 1000000))
end
if op ~= 'look' then
  redis.call('HSET', KEYS[1], 'index', string.format('%.0f', index), 'used', string.format('%.6f', used),
    'blocked', string.format('%.0f', blocked), 'since', string.format('%.6f', since))
  redis.call('PEXPIRE', KEYS[1], math.ceil(math.max((index + 1) * window - now, blocked - now) / 1000) + 1000)
end
return {taken, wait, math.max(0, blocked - now), index}
""")
"""KEYS windows; ARGV take | give | left | lost | block | look, capacity of a window, its us, amount (tokens; of block:
seconds), us to keep away from where two windows meet, and of give: the window it was taken from, of left: us since
the request was sent.

-> as BUCKET, and the number of the window that was taken from. ``lost``: the server may have forgotten what was spent
in this window; no more than ``amount`` is left of it until an answer of the venue (``left``) tells what it counted. Who
wants more is told to ask again (0, and us to wait): the next window is not for what this one may still have.
"""


class Rule(Protocol):
    """One way to count."""

    @property
    def script(self) -> Script: ...

    @property
    def forgot(self) -> tuple[str, float]:
        """Operation and amount with which to begin on a server that may have forgotten what was spent."""

    def arguments(self, op: str, amount: float, extra: float) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Bucket:
    """At most ``capacity`` at once, refilled at ``rate`` tokens a second."""

    capacity: float
    rate: float
    script = BUCKET
    forgot = ("left", 0.0)

    def arguments(self, op: str, amount: float, extra: float) -> tuple[str, ...]:
        return op, f"{self.capacity:.6f}", f"{self.rate:.9f}", f"{amount:.6f}"


@dataclass(frozen=True, slots=True)
class Windows:
    """At most ``capacity`` in each window of ``seconds`` that begins with the clock."""

    capacity: float
    seconds: float
    doubtful: float
    """What may be spent on a server that may have forgotten, before the venue's first answer."""
    script = WINDOWS

    @property
    def margin(self) -> float:
        """Seconds to keep away from where two windows meet."""
        return self.seconds / 120

    @property
    def forgot(self) -> tuple[str, float]:
        return "lost", self.doubtful

    def arguments(self, op: str, amount: float, extra: float) -> tuple[str, ...]:
        times = [f"{value * US:.0f}" for value in (self.seconds, self.margin)]
        return op, f"{self.capacity:.6f}", times[0], f"{amount:.6f}", times[1], f"{extra:.0f}"
