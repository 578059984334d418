"""The append and confirm scripts on a real server against a small model, compared after each step.

Two sessions append, repeat, lose answers, are refused by a full server, and lose what a server rolled back has
forgotten. Whatever the order of that: of each session the stream has a dense run of batches, each once and with the
payload it was sent with, and its last number is what the server answers.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from feedmill.receiver.scripts import APPEND, CONFIRM
from feedmill.shared.keys import ShardRef

from .servers import Server

SHARD = ShardRef("test", "append", 0)
SESSIONS = ("r0-a", "r1-b")
MARKER = SHARD.raw + ":confirm"
sessions = st.sampled_from(SESSIONS)


def payload_of(session: str, n: int) -> bytes:
    return f"{session}/{n}".encode()


@dataclass
class Model:
    """What the server ought to have."""

    stream: list[tuple[str, int]] = field(default_factory=list)
    last: dict[str, int] = field(default_factory=dict)

    def append(self, session: str, n: int) -> list[int]:
        last = self.last.get(session, 0)
        if n <= last:
            return [0, last]
        if n > last + 1:
            return [-1, last]
        self.stream.append((session, n))
        self.last[session] = n
        return [1, n]


@dataclass
class Client:
    """A receiver that keeps every batch: it sends the next one and believes the server's answer."""

    made: int = 0
    next: int = 1


class Appending(RuleBasedStateMachine):
    server: Server

    @initialize()
    def begin(self) -> None:
        self.server.begin_anew()
        self.model = Model()
        self.clients = {session: Client() for session in SESSIONS}
        self.pictures: list[tuple[dict[bytes, bytes], Model]] = [(self.server.picture(), Model())]

    def _run(self, script: Any, keys: list[str], *args: Any) -> Any:
        return self.server.client.eval(script.source, len(keys), *keys, *args)

    def _append(self, session: str, n: int) -> list[int]:
        answer: list[int] = self._run(APPEND, [SHARD.raw, SHARD.sessions], session, n, payload_of(session, n))
        assert answer == self.model.append(session, n)
        return answer

    @rule(session=sessions, count=st.integers(1, 4))
    def produce(self, session: str, count: int) -> None:
        self.clients[session].made += count

    @rule(session=sessions, lost=st.booleans())
    def send_next(self, session: str, lost: bool) -> None:
        """``lost``: the server does it and its answer does not arrive, so it is sent once more."""
        client = self.clients[session]
        if client.next <= client.made:
            _, last = self._append(session, client.next)
            if not lost:
                client.next = last + 1

    @rule(session=sessions, n=st.integers(1, 12))
    def send_any(self, session: str, n: int) -> None:
        """A message that was long under way, or one of a receiver that is wrong about the server."""
        self._append(session, n)
        self.clients[session].made = max(self.clients[session].made, n)

    @rule(session=sessions, n=st.integers(1, 12))
    def confirm(self, session: str, n: int) -> None:
        last = self.model.last.get(session, 0)
        before = self.server.client.get(MARKER)
        answer = self._run(CONFIRM, [MARKER, SHARD.sessions], session, n)
        assert answer == [int(last >= n), last]
        assert self.server.client.get(MARKER) == (str(n).encode() if last >= n else before)
        self.server.client.delete(MARKER)

    @rule(session=sessions)
    def send_to_a_full_server(self, session: str) -> None:
        """Refused before anything was done."""
        n = self.model.last.get(session, 0) + 1
        self.server.client.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                self._run(APPEND, [SHARD.raw, SHARD.sessions], session, n, payload_of(session, n))
        finally:
            self.server.client.config_set("maxmemory", 0)

    @rule(keep=st.integers(0, 5))
    def trim(self, keep: int) -> None:
        """As the distributor does with what it needs no longer."""
        self.server.client.xtrim(SHARD.raw, maxlen=keep, approximate=False)
        del self.model.stream[: max(0, len(self.model.stream) - keep)]

    @rule()
    def take_picture(self) -> None:
        self.pictures.append((self.server.picture(), copy.deepcopy(self.model)))

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        picture, model = data.draw(st.sampled_from(self.pictures))
        self.server.roll_back(picture)
        self.model = copy.deepcopy(model)

    @invariant()
    def equal_to_the_model(self) -> None:
        assert self._stream() == self.model.stream
        known = {key.decode(): int(value) for key, value in self.server.client.hgetall(SHARD.sessions).items()}
        assert known == self.model.last
        for session in SESSIONS:
            numbers = [n for owner, n in self.model.stream if owner == session]
            if numbers:
                # Trimming and rolling back take from the ends only: what is left has no hole.
                assert numbers == list(range(numbers[0], self.model.last[session] + 1))

    def _stream(self) -> list[tuple[str, int]]:
        found = []
        for _, fields in self.server.client.xrange(SHARD.raw):
            session, n = fields[b"b"].decode().split("/")
            found.append((session, int(n)))
        return found

    def teardown(self) -> None:
        """However it went: receivers that go on until nothing is left put everything there, each batch once."""
        for session, client in self.clients.items():
            steps = 0
            while client.next <= client.made:
                _, last = self._append(session, client.next)
                client.next = last + 1
                steps += 1
                assert steps <= client.made + 1
            # Nothing was sent since a rollback: one more question shows whether the server still has it all.
            if client.made and self._append(session, client.made)[0] < 0:
                client.next = self.model.last.get(session, 0) + 1
                for n in range(client.next, client.made + 1):
                    assert self._append(session, n) == [1, n]
            assert self.model.last.get(session, 0) == client.made
        self.equal_to_the_model()


def test_appending_by_its_model(server: Server) -> None:
    Appending.server = server
    run_state_machine_as_test(Appending, settings=settings(max_examples=100, stateful_step_count=30))
