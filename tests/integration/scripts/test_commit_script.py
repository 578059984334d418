"""The commit script on a real server against a small model, compared after each step.

Two distributors without a lease work on one shard whose raw batches come from one receiver. They crash before or after
a commit, lose its answer, send it again, compete; the server rolls back to an earlier moment, with all that was in it.
Whatever the order: each commit has one effect or none, the chain of the events stream is dense, and each batch that the
receiver made stands in it once.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from feedmill.distributor.scripts import COMMIT
from feedmill.receiver.scripts import APPEND
from feedmill.shared.keys import ShardRef
from feedmill.shared.redis.ids import BEGIN, id_of

from .servers import Server

SHARD = ShardRef("test", "commit", 0)
KEYS = (SHARD.checkpoint, SHARD.raw, SHARD.events, SHARD.commands, SHARD.images, SHARD.applied)
SESSION = "r0-a"
who = st.sampled_from(("one", "two"))
names = st.sampled_from(["t:A", "t:B", "k:A", "s:x"])
pairs = st.dictionaries(names, st.binary(max_size=8), max_size=4)
some_names = st.lists(names, max_size=2, unique=True)
ids = (f"{number:08x}" for number in itertools.count(1))


@dataclass
class Model:
    """What the server ought to have."""

    checkpoint: dict[str, bytes] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    events: list[dict[str, bytes]] = field(default_factory=list)
    """All there ever were, trimmed ones included."""
    commands: list[bytes] = field(default_factory=list)
    handled: int = 0
    """Last raw batch in a commit."""
    floor: str = BEGIN
    """No raw entry from here on may have been trimmed."""
    stored: str = BEGIN
    """The same of the events stream."""

    @property
    def id(self) -> str:
        return self.checkpoint.get("id", b"").decode()


@dataclass
class Commit:
    """One call of the script, which can be sent more than once."""

    arguments: list[Any]
    before: str
    new: str
    fields: dict[str, bytes]
    deleted: list[str]
    images: dict[str, bytes]
    commands: list[bytes]
    entry: dict[str, bytes] | None
    own: dict[str, bytes]
    handled: int
    floor: str

    def apply(self, model: Model) -> None:
        model.checkpoint |= self.own
        model.checkpoint |= self.fields
        for name in self.deleted:
            model.checkpoint.pop(name, None)
        model.images |= self.images
        model.commands += self.commands
        model.handled = self.handled
        if self.entry is not None:
            model.events.append(self.entry)
        if self.floor:
            model.floor = max(model.floor, self.floor, key=id_of)


@dataclass
class View:
    """What a distributor has in memory: the checkpoint it loaded, moved on by its own commits."""

    id: str
    pos: str
    en: int
    eid: str
    handled: int


class Committing(RuleBasedStateMachine):
    server: Server

    @initialize()
    def begin(self) -> None:
        self.server.begin_anew()
        self.model = Model()
        self.made = 0
        self.views: dict[str, View | None] = {"one": None, "two": None}
        self.sent: list[Commit] = []
        self.pictures: list[tuple[dict[bytes, bytes], Model]] = [({}, Model())]

    # the receiver
    @rule(count=st.integers(1, 5))
    def receive(self, count: int) -> None:
        self.made += count
        self._append()

    def _append(self) -> None:
        """Until the server has everything, whatever it forgot."""
        client, n = self.server.client, self.made
        while n <= self.made:
            _, last = client.eval(APPEND.source, 2, SHARD.raw, SHARD.sessions, SESSION, n, str(n))
            n = last + 1

    # the distributors
    def _load(self, name: str) -> View:
        raw = self.server.client.hgetall(SHARD.checkpoint)
        found = {key.decode(): value for key, value in raw.items()}
        view = View(
            found.get("id", b"").decode(),
            found.get("pos", BEGIN.encode()).decode(),
            int(found.get("en", 0)),
            found.get("eid", b"").decode(),
            int(found.get("n:" + SESSION, 0)),
        )
        self.views[name] = view
        return view

    @rule(name=who)
    def start_or_crash(self, name: str) -> None:
        """Either way nothing of what it had in memory is left."""
        self._load(name)

    @rule(
        name=who, most=st.integers(0, 6), fields=pairs, deleted=some_names, images=pairs,
        commands=st.lists(st.binary(min_size=1, max_size=5), max_size=3), deltas=st.booleans(), trims=st.booleans(),
        fate=st.sampled_from(["answered", "answered", "lost", "crashed before"]),
    )  # fmt: skip
    def commit(
        self, name: str, most: int, fields: dict[str, bytes], deleted: list[str], images: dict[str, bytes],
        commands: list[bytes], deltas: bool, trims: bool, fate: str,
    ) -> None:  # fmt: skip
        view = self.views[name] or self._load(name)
        commit, after = self._make(view, most, fields, deleted, images, commands, deltas, trims)
        if fate == "crashed before":
            self.views[name] = None
            return
        made = self._send(commit)
        self.views[name] = after if made and fate == "answered" else None

    def _make(
        self, view: View, most: int, fields: dict[str, bytes], deleted: list[str], images: dict[str, bytes],
        commands: list[bytes], deltas: bool, trims: bool,
    ) -> tuple[Commit, View]:  # fmt: skip
        pos, handled, numbers = view.pos, view.handled, []
        for entry, content in self.server.client.xrange(SHARD.raw, f"({pos}", "+", most) if most else []:
            pos, n = entry.decode(), int(content[b"b"])
            if n > handled:
                # One who does not know yet that the other went on may find entries trimmed: its commit is refused.
                assert n == handled + 1 or view.id != self.model.id, "a batch was trimmed before it was handled"
                numbers.append(n)
                handled = n
        new = next(ids)
        after = View(new, pos, view.en, view.eid, handled)
        own = {"id": new.encode(), "pos": pos.encode()}
        entry_of: dict[str, bytes] | None = None
        if numbers or deltas:
            after.en, after.eid = view.en + 1, new
            own |= {"en": str(after.en).encode(), "eid": new.encode()}
            entry_of = {
                "n": own["en"], "id": own["id"], "p": view.eid.encode(), "e": ",".join(map(str, numbers)).encode(),
            }  # fmt: skip
            if deltas:
                entry_of["d"] = b"changes"
        if numbers:
            fields = fields | {"n:" + SESSION: str(handled).encode()}
        deleted = [field for field in deleted if field not in fields]
        floor = pos if trims and pos != BEGIN else ""
        flat = [item for pair in fields.items() for item in pair]
        shown = [item for pair in images.items() for item in pair]
        arguments = [
            view.id, new, pos, floor,
            after.en if entry_of else "", new, view.eid, entry_of["e"] if entry_of else b"",
            b"changes" if deltas else b"",
            len(flat), *flat, len(deleted), *deleted, len(shown), *shown, *commands,
        ]  # fmt: skip
        return (
            Commit(arguments, view.id, new, fields, deleted, images, commands, entry_of, own, handled, floor),
            after,
        )

    def _send(self, commit: Commit) -> bool:
        self.sent.append(commit)
        code, found = self.server.client.eval(COMMIT.source, len(KEYS), *KEYS, *commit.arguments)
        if commit.before != self.model.id:
            assert (code, found.decode()) == (0, self.model.id)
            return False
        assert code == 1
        assert bool(found) == (commit.entry is not None)
        commit.apply(self.model)
        return True

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def send_an_old_one_again(self, data: st.DataObject) -> None:
        """Of a connection that hung, or because the answer was lost. It is one more commit or it is none."""
        self._send(data.draw(st.sampled_from(self.sent[-4:])))

    @rule(memory=st.sampled_from([0, 1]))
    def fill_or_empty(self, memory: int) -> None:
        """A full server takes commits: they free what blocks it."""
        self.server.client.config_set("maxmemory", 0)
        self._append()
        self.server.client.config_set("maxmemory", memory)
        view = self._load("one")
        commit, _ = self._make(view, 3, {"t:A": b"x"}, [], {}, [], True, True)
        assert self._send(commit)
        self.server.client.config_set("maxmemory", 0)
        self.views["one"] = None

    # the processor
    @rule()
    def store_all(self) -> None:
        entries = self.server.client.xrevrange(SHARD.events, count=1)
        if entries:
            self.model.stored = entries[0][0].decode()
            self.server.client.hset(SHARD.applied, "stream", self.model.stored)

    # the server
    @rule()
    def take_picture(self) -> None:
        self.pictures.append((self.server.picture(), copy.deepcopy(self.model)))

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        """All connections end, so every memory is dropped; the receiver notices what is missing and sends it again."""
        picture, model = data.draw(st.sampled_from(self.pictures))
        self.server.roll_back(picture)
        self.model = copy.deepcopy(model)
        self.views = {"one": None, "two": None}
        self.sent.clear()
        if self.made:
            self._append()

    @rule()
    def flush(self) -> None:
        """All keys are deleted by hand: nobody's connection ends, and what is under way still arrives."""
        self.server.wipe()
        self.model = Model()
        if self.made:
            self._append()

    # what must hold
    @invariant()
    def equal_to_the_model(self) -> None:
        client, model = self.server.client, self.model
        assert {key.decode(): value for key, value in client.hgetall(SHARD.checkpoint).items()} == model.checkpoint
        assert {key.decode(): value for key, value in client.hgetall(SHARD.images).items()} == model.images
        assert [content[b"c"] for _, content in client.xrange(SHARD.commands)] == model.commands
        entries = client.xrange(SHARD.events)
        found = [{key.decode(): value for key, value in content.items()} for _, content in entries]
        assert found == model.events[len(model.events) - len(found) :]
        if len(found) < len(model.events):
            assert id_of(entries[0][0].decode()) <= id_of(model.stored), "an event was trimmed that is not stored"
        left = [int(content[b"b"]) for _, content in client.xrange(SHARD.raw)]
        assert left == list(range(self.made - len(left) + 1, self.made + 1))
        assert self.made - len(left) <= model.handled, "a batch was trimmed that is in no commit"

    @invariant()
    def chain_is_dense_and_each_batch_stands_in_it_once(self) -> None:
        events = self.model.events
        assert [int(entry["n"]) for entry in events] == list(range(1, len(events) + 1))
        assert [entry["p"] for entry in events] == [b"", *(entry["id"] for entry in events)][: len(events)]
        handled = [int(n) for entry in events for n in entry["e"].split(b",") if n]
        assert handled == list(range(1, self.model.handled + 1))

    def teardown(self) -> None:
        """However it went: a distributor that starts now handles all that is left."""
        self._load("two")
        for _ in range(self.made + 1):
            self.commit("two", 5, {}, [], {}, [], False, True, "answered")
        assert self.model.handled == self.made
        self.equal_to_the_model()
        self.chain_is_dense_and_each_batch_stands_in_it_once()


def test_committing_by_its_model(server: Server) -> None:
    Committing.server = server
    run_state_machine_as_test(Committing, settings=settings(max_examples=60, stateful_step_count=30))
