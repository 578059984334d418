"""Which backups are kept: age, count, and whatever they say, never the last good one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feedmill.general.backup.catalogue import Catalogue, Entry
from feedmill.general.backup.manifest import Drill, Manifest
from feedmill.general.backup.names import Kind, Names
from feedmill.general.backup.retention import GRACE_NS, Plan, plan
from feedmill.general.backup.stores.base import Found

DAY = 86_400_000_000_000
NOW = 20_000 * DAY
NAMES = Names("default", "main")


def entry(age_days: int, kind: Kind = "logical", *, stored: int | None = 10, passed: bool | None = None) -> Entry:
    at = NOW - age_days * DAY
    backup_id = f"20261126T{age_days:06d}Z-{kind}-00000a"
    manifest = Manifest(
        id=backup_id, kind=kind, namespace="default", pipeline="main", object=NAMES.data(backup_id), size_bytes=10,
        sha256="", plain_bytes=10, key_id="k1", started_ns=at, ended_ns=at, snapshot_ns=at, schema_version="0003",
        feedmill_version="0.1.0", server_version="18.6",
    )  # fmt: skip
    drill = None
    if passed is not None:
        drill = Drill(id="d", backup_id=backup_id, passed=passed, started_ns=at, ended_ns=at, feedmill_version="0.1.0")
    return Entry(manifest, stored, drill)


def of(*entries: Entry, leftovers: tuple[Found, ...] = (), drills: tuple[tuple[Found, Drill], ...] = ()) -> Catalogue:
    newest_first = sorted(entries, key=lambda each: each.manifest.snapshot_ns, reverse=True)
    return Catalogue(tuple(newest_first), (), leftovers, drills)


def kept(made: Plan) -> list[int]:
    """Ages in days."""
    return [(NOW - each.manifest.snapshot_ns) // DAY for each in made.kept]


def test_age_and_count() -> None:
    catalogue = of(*(entry(age) for age in range(10)))
    assert kept(plan(catalogue, NOW, 6 * DAY, 100)) == [0, 1, 2, 3, 4, 5, 6]
    assert kept(plan(catalogue, NOW, 100 * DAY, 3)) == [0, 1, 2]


def test_each_kind_is_counted_for_itself() -> None:
    catalogue = of(*(entry(age) for age in range(4)), *(entry(age, "base") for age in range(4)))
    assert kept(plan(catalogue, NOW, 100 * DAY, 2)) == [0, 0, 1, 1]


def test_the_newest_good_one_stays_however_old_it_is() -> None:
    made = plan(of(entry(50), entry(60), entry(70, "base")), NOW, 30 * DAY, 60)
    assert kept(made) == [50, 70]
    assert {each.why for each in made.backups if each.keep} == {"the newest good one"}
    assert {each.why for each in made.backups if not each.keep} == {"too old"}


def test_one_whose_object_is_gone_or_short_or_whose_drill_failed_is_not_the_good_one() -> None:
    bad = (entry(40, stored=None), entry(41, stored=9), entry(42, passed=False))
    assert kept(plan(of(*bad, entry(50), entry(60)), NOW, 30 * DAY, 60)) == [50]


def test_a_bad_one_takes_no_place_of_a_good_one_and_goes_by_age() -> None:
    young = (entry(1, passed=False), entry(2, stored=None))
    assert kept(plan(of(*young, entry(3), entry(4), entry(5)), NOW, 30 * DAY, 2)) == [1, 2, 3, 4]
    assert kept(plan(of(*young, entry(3)), NOW, DAY // 2, 2)) == [3]


def test_the_newest_proven_one_stays_while_newer_ones_are_not_proven() -> None:
    catalogue = of(entry(1), entry(2), entry(3, passed=True), entry(4, passed=True))
    assert kept(plan(catalogue, NOW, 100 * DAY, 1)) == [1, 3]


def test_leftovers_go_after_their_grace() -> None:
    old, young = (Found(f"default/main/logical/x{n}/data", 5, at) for n, at in enumerate((NOW - GRACE_NS - 1, NOW)))
    assert plan(of(leftovers=(old, young)), NOW, DAY, 1).leftovers == (old,)


def test_drills_of_what_is_kept_stay() -> None:
    good = entry(50, passed=True)
    records = []
    for backup_id in (good.manifest.id, "20261126T030000Z-logical-ffffff"):
        for at in (NOW, NOW - 40 * DAY):
            drill = Drill(
                id="d", backup_id=backup_id, passed=True, started_ns=at, ended_ns=at, feedmill_version="0.1.0"
            )
            records.append((Found(f"{backup_id}-{at}", 5, at), drill))
    made = plan(of(good, drills=tuple(records)), NOW, 30 * DAY, 1)
    assert [found.name for found in made.drills] == [f"20261126T030000Z-logical-ffffff-{NOW - 40 * DAY}"]


ages = st.integers(0, 90)
entries = st.builds(
    entry,
    ages,
    st.sampled_from(["logical", "base"]),
    stored=st.sampled_from([10, 9, None]),
    passed=st.sampled_from([True, False, None]),
)


@given(
    st.lists(entries, max_size=30, unique_by=lambda each: (each.manifest.kind, each.manifest.snapshot_ns)),
    st.integers(1, 90),
    st.integers(1, 10),
)
def test_never_the_last_good_one(found: list[Entry], max_age: int, max_count: int) -> None:
    made = plan(of(*found), NOW, max_age * DAY, max_count)
    for kind in ("logical", "base"):
        of_kind = [each for each in found if each.manifest.kind == kind]
        staying = [each for each in made.kept if each.manifest.kind == kind]
        for quality in ("good", "proven"):
            newest = max(
                (each for each in of_kind if getattr(each, quality)), key=lambda each: each.manifest.snapshot_ns,
                default=None,
            )  # fmt: skip
            assert newest is None or newest in staying
        young_and_good = [each for each in staying if each.good and each.manifest.snapshot_ns >= NOW - max_age * DAY]
        assert len(young_and_good) <= max_count + 1  # The proven one may stand beyond the count.
    assert len(made.backups) == len(found)
