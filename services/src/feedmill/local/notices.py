"""What changed between two looks at the manager, as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from feedmill.local.status import ManagerStatus, ServiceStatus

RESTART_WORTH_TELLING = frozenset({"backoff", "failed"})
QUIET_AFTER = 60.0
"""Seconds after which a topic without any data is told of: some venues acknowledge symbols that they do not have."""
SHOWN = 4
"""Names in one line."""


@dataclass(slots=True)
class Notices:
    """Remembers what was told, so that each change is told once."""

    _connections: dict[tuple[str, str], str] = field(default_factory=dict)
    _troubles: dict[str, set[str]] = field(default_factory=dict)
    """Service -> why it could not reach its exchange, told since it last did: causes take turns."""
    _restarts: dict[str, int] = field(default_factory=dict)
    _states: dict[str, str] = field(default_factory=dict)
    _servers: dict[str, tuple[str, int]] = field(default_factory=dict)
    _looping: set[str] = field(default_factory=set)
    _accounts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Account receiver -> what was told last of its accounts with a problem."""
    _told: set[tuple[str, str]] = field(default_factory=set)
    """(feed, what) of that which is told once for good, however many receivers say it."""

    def look(self, status: ManagerStatus) -> list[str]:
        """Lines for what is new since the last look."""
        lines: list[str] = []
        for service in status.services:
            lines += self._life(service, status.phase)
            if status.phase == "running":
                lines += self._reach(service) + self._refused(service) + self._not_listened(service)
        for server in status.servers:
            known = self._servers.get(server.name)
            self._servers[server.name] = (server.state, server.restarts)
            if known is not None and server.restarts > known[1]:
                lines.append(f"{server.name} had ended and was started again (its log is in {status.data_dir})")
            elif known is not None and known[0] == "running" and server.state == "restarting":
                lines.append(f"{server.name} has ended: starting it again; the services wait for it")
        return lines

    def _life(self, service: ServiceStatus, phase: str) -> list[str]:
        before, self._states[service.name] = self._states.get(service.name), service.state
        lines: list[str] = []
        quiet = service.name in self._looping
        if service.state in RESTART_WORTH_TELLING and before != service.state and phase == "running" and not quiet:
            if service.state == "failed":
                why = service.last_error or service.last_exit or "no reason known"
                lines.append(f"{service.name} refuses its configuration and is not started again: {why}")
            else:
                why = f": {service.last_error}" if service.last_error else ""
                again = f", again in {service.next_start_seconds:g} s" if service.next_start_seconds is not None else ""
                lines.append(f"{service.name} ended ({service.last_exit or 'no reason known'}){why}{again}")
        if service.restarts > self._restarts.get(service.name, 0) and service.state in ("running", "starting"):
            if not quiet:
                # Its end may have come and gone between two looks.
                ended = "" if before in RESTART_WORTH_TELLING else f" after its end ({service.last_exit or '?'})"
                lines.append(f"{service.name} was started again{ended}, restart {service.restarts}")
            self._restarts[service.name] = service.restarts
        if service.crash_loop and service.name not in self._looping:
            self._looping.add(service.name)
            why = service.last_error or service.last_exit or "no reason known"
            lines.append(f"{service.name} keeps ending at its start ({why}): tried less and less often, see its log")
        elif not service.crash_loop and service.name in self._looping:
            self._looping.discard(service.name)
            if service.state == "running":
                lines.append(f"{service.name} runs again")
        return lines

    def _refused(self, service: ServiceStatus) -> list[str]:
        """What the exchange does not give, although it can be reached."""
        health, name = service.health or {}, service.feed or service.name
        lines: list[str] = []
        connections = health.get("connections")
        sections = list(connections.values()) if isinstance(connections, dict) else []
        for section in sections:
            refused = self._new(name, "refused", section.get("rejected") or ())
            if refused:
                lines.append(f"{name}: the exchange does not give {_names(refused)}: see the receiver's log for why")
            if (section.get("openSeconds") or 0.0) < QUIET_AFTER or not is_flowing(section):
                continue
            rejected = section.get("rejected") or ()
            ages = section.get("freshness") or {}
            quiet = [topic for topic, age in ages.items() if age is None and topic not in rejected]
            if quiet := self._new(name, "quiet", quiet):
                lines.append(
                    f"{name}: no data yet of {_names(quiet)}, {QUIET_AFTER:g} s after subscribing: a quiet market, "
                    "or a symbol that the exchange does not have"
                )
        problem = (health.get("rest") or {}).get("problem")
        # Where the streams cannot be reached either, that has been told already.
        away = any(connection_trouble(section) is not None for section in sections)
        if problem and not away and self._new(name, "rest", [problem]):
            lines.append(f"{name}: REST: {problem}")
        return lines

    def _not_listened(self, service: ServiceStatus) -> list[str]:
        """Accounts with a problem, and those that have none any more."""
        section = (service.health or {}).get("accounts")
        if service.role != "accounts" or not isinstance(section, dict):
            return []
        before = self._accounts.get(service.name, {})
        now = {name: str(problem.get("why") or "") for name, problem in (section.get("problems") or {}).items()}
        self._accounts[service.name] = now
        new = [f"account {name}: {why}" for name, why in now.items() if before.get(name) != why]
        if len(new) > SHOWN:
            new = [*new[:SHOWN], f"and {len(new) - SHOWN} more accounts: feedmill status names them"]
        # Of another member now, or off: then it is not known to be well.
        states = section.get("states") or {}
        well = [name for name in before if name not in now and states.get(name) in ("listening", "reconciling")]
        return [*new, *([f"{_names([f'account {name}' for name in well])}: listened to"] if well else [])]

    def _new(self, name: str, what: str, items: Iterable[str]) -> list[str]:
        """Those that were not told before, told from now on."""
        found = [item for item in items if (name, f"{what} {item}") not in self._told]
        self._told.update((name, f"{what} {item}") for item in found)
        return found

    def _reach(self, service: ServiceStatus) -> list[str]:
        """Exchanges that cannot be reached, with host and cause, and when they can be again."""
        connections = (service.health or {}).get("connections")
        if not isinstance(connections, dict):
            return []
        lines: list[str] = []
        for name, section in connections.items():
            key = (service.name, name)
            trouble = connection_trouble(section)
            before = self._connections.get(key)
            if trouble is not None:
                # Several connections of a feed fail for the same reason at once: that is one thing to tell.
                known = {text for (owner, _), text in self._connections.items() if owner == service.name}
                told = self._troubles.setdefault(service.name, set())
                if trouble not in known and trouble not in told:
                    lines.append(f"{service.feed or service.name}: {trouble}; trying again")
                told.add(trouble)
                self._connections[key] = trouble
            elif is_flowing(section):
                if before is not None and before != "":
                    lines.append(f"{service.feed or service.name}: connection {name} is back")
                self._connections[key] = ""
                self._troubles.pop(service.name, None)
        return lines


def _names(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def connection_trouble(section: dict[str, Any]) -> str | None:
    """Why a connection of a receiver does not stand; None when it does (or is only on its way)."""
    failure = section.get("failure")
    if isinstance(failure, dict) and not is_flowing(section):
        detail = failure.get("detail")
        return f"cannot reach {failure.get('host')}: {failure.get('cause')}{f' ({detail})' if detail else ''}"
    return None


def is_flowing(section: dict[str, Any]) -> bool:
    """Open and subscribed to something."""
    return bool(section.get("active"))
