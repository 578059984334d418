"""What follows from which files of the log are there: how far a base backup reaches, what may be deleted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.general.backup.manifest import Manifest
from feedmill.general.backup.names import Names, wal_of
from feedmill.general.backup.stores.base import Found
from feedmill.general.backup.wal_plan import (
    CLOCKS_NS,
    SEGMENT_BYTES,
    USELESS_AFTER_NS,
    Lineage,
    NoWay,
    Segment,
    choose,
    connected,
    history_name,
    lineage_of,
    logs_of,
    parse_lsn,
    partial_name,
    partial_of,
    reach_of,
    segment_at,
    segment_of,
    show_lsn,
    unneeded,
)

NAMES = Names("default", "main")
SYSTEM = "7301234567890123456"
MINUTE = 60 * 1_000_000_000


def file(number: int, timeline: int = 1) -> str:
    return Segment(number, timeline).name()


def stored(*files: str, system: str = SYSTEM, at_ns: int | None = None) -> list[Found]:
    """One a minute, in the order given."""
    return [
        Found(NAMES.wal(system, each), 100, at_ns if at_ns is not None else MINUTE * (at + 1))
        for at, each in enumerate(files)
    ]


def base(first: int, last: int, *, ended_ns: int = 0, system: str = SYSTEM, number: int = 0) -> Manifest:
    return Manifest(
        id=f"20261126T03000{number}Z-base-00000{number}", kind="base", namespace="default", pipeline="main", object="o",
        size_bytes=1, sha256="", key_id="k", plain_bytes=1, started_ns=ended_ns, ended_ns=ended_ns,
        snapshot_ns=ended_ns, schema_version="0003", feedmill_version="0", server_version="18.6", system=system,
        timeline=1, wal_from=file(first), wal_to=file(last),
    )  # fmt: skip


@given(st.integers(0, 2**40), st.integers(1, 2**31), st.sampled_from([1 << 20, 16 << 20, 1 << 30]))
def test_names_of_segments(number: int, timeline: int, size: int) -> None:
    number %= (1 << 64) // size
    name = Segment(number, timeline).name(size)
    assert len(name) == 24
    assert segment_of(name, size) == Segment(number, timeline)
    assert segment_of(name + ".partial", size) is None


def test_a_name_and_positions_as_postgresql_has_them() -> None:
    assert segment_at(parse_lsn("16/B374D848"), 1) == segment_of("0000000100000016000000B3")
    assert show_lsn(parse_lsn("16/B374D848")) == "16/B374D848"
    assert Segment(3, 1).start(SEGMENT_BYTES) == 3 * (16 << 20)
    for wrong in ("", "16", "16/", "g/1", "0000000100000016000000b3"):
        with pytest.raises(ValueError, match="not a position"):
            parse_lsn(wrong)


def test_an_unfinished_file_has_another_name_each_time() -> None:
    early, late = partial_name(file(3), 5), partial_name(file(3), 1_800_000_000_000_000_000)
    assert early < late
    assert partial_of(late) == (file(3), 1_800_000_000_000_000_000)
    assert partial_of(file(3)) is None
    assert wal_of(NAMES.wal(SYSTEM, late)) == (SYSTEM, late)


def test_the_log_without_a_gap() -> None:
    log = logs_of(stored(*(file(n) for n in range(3, 9))))[SYSTEM]
    reach = reach_of(base(3, 4), log)
    assert (reach.until, reach.until_ns, reach.beyond) == (Segment(8, 1), 6 * MINUTE, 0)
    assert connected(base(3, 4), log, Segment(9, 1), Lineage(1))
    assert not connected(base(3, 4), log, Segment(10, 1), Lineage(1)), "nine is missing"


def test_what_lies_beyond_a_gap_is_not_reached() -> None:
    log = logs_of(stored(file(3), file(4), file(6), file(7)))[SYSTEM]
    reach = reach_of(base(3, 4), log)
    assert (reach.until, reach.beyond) == (Segment(4, 1), 2)
    assert not connected(base(3, 4), log, Segment(8, 1), Lineage(1))


def test_an_unfinished_file_is_the_end_whatever_follows() -> None:
    log = logs_of(stored(file(3), partial_name(file(4), 1), partial_name(file(4), 2), file(5)))[SYSTEM]
    assert [found.name for found in log.leftovers] == [NAMES.wal(SYSTEM, partial_name(file(4), 1))]
    reach = reach_of(base(3, 3), log)
    assert (reach.until, reach.until_ns, reach.beyond) == (Segment(4, 1), 3 * MINUTE, 1)
    assert not connected(base(3, 3), log, Segment(5, 1), Lineage(1)), "of four only a beginning is there"
    whole = logs_of(stored(file(3), partial_name(file(4), 1), file(4), file(5)))[SYSTEM]
    assert reach_of(base(3, 3), whole).until == Segment(5, 1)
    assert len(whole.leftovers) == 1


def test_a_base_backup_without_its_own_log() -> None:
    log = logs_of(stored(file(3), file(5)))[SYSTEM]
    with pytest.raises(NoWay, match=f"needs WAL up to {file(5)}, and {file(4)} is not at the destination"):
        reach_of(base(3, 5), log)


def test_a_promoted_server_goes_on_in_the_same_segment() -> None:
    log = logs_of(stored(file(3), file(4), "00000002.history", file(5, 2), file(6, 2)))[SYSTEM]
    assert reach_of(base(3, 3), log).until == Segment(6, 2)


def test_a_history_says_which_timeline_a_segment_is_of() -> None:
    text = "# of tests\n1\t0/5000028\tno recovery target specified\n\n2\t0/8000000\tbefore 2026-11-25 03:00:00+00\n"
    lineage = lineage_of(3, text)
    assert lineage == Lineage(3, ((1, 0x5000028), (2, 0x8000000)))
    assert [lineage.segment(number, SEGMENT_BYTES).timeline for number in range(3, 10)] == [1, 1, 2, 2, 2, 3, 3]
    assert history_name(26) == "0000001A.history"
    with pytest.raises(ValueError, match="not a line of a timeline's history"):
        lineage_of(2, "1\tnowhere\tx\n")


def test_what_a_predecessor_wrote_after_the_promotion_is_no_part_of_the_log() -> None:
    """A standby that lagged took over in segment 5; its predecessor's 5, 6 and 7 were stored before."""
    lineage = Lineage(2, ((1, Segment(5, 1).start() + 40),))
    before = [file(n) for n in range(3, 8)]
    log = logs_of(stored(*before))[SYSTEM]
    assert connected(base(3, 3), log, Segment(5, 2), lineage), "all before the promotion is there"
    assert not connected(base(3, 3), log, Segment(8, 2), lineage), "of the new timeline 5, 6 and 7 are missing"
    whole = logs_of(stored(*before, "00000002.history", *(file(n, 2) for n in (5, 6, 7))))[SYSTEM]
    assert connected(base(3, 3), whole, Segment(8, 2), lineage)
    assert not connected(base(6, 6), whole, Segment(8, 2), lineage), "a base backup of what is no part of it"
    assert not connected(base(3, 3), whole, Segment(8, 3), Lineage(3, ((2, Segment(4, 2).start()),)))


def test_the_newest_base_backup_before_the_moment() -> None:
    logs = logs_of(stored(*(file(n) for n in range(3, 30))))
    bases = [base(3, 3, ended_ns=10 * MINUTE, number=1), base(10, 11, ended_ns=20 * MINUTE, number=2)]
    assert choose(bases, logs, None).base.id == bases[1].id
    assert choose(bases, logs, 25 * MINUTE).base.id == bases[1].id
    assert choose(bases, logs, 15 * MINUTE).base.id == bases[0].id
    with pytest.raises(NoWay, match=r"first moment that can be restored is 1970-01-01T00:10:00\.0"):
        choose(bases, logs, 9 * MINUTE)
    without = base(40, 40, ended_ns=5 * MINUTE, number=3)
    with pytest.raises(NoWay, match=r"first moment that can be restored is 1970-01-01T00:10:00\.0"):
        choose([*bases, without], logs, 4 * MINUTE)
    with pytest.raises(NoWay, match="no base backup was whole at that time: and no later one can be"):
        choose([without], logs, 4 * MINUTE)
    with pytest.raises(NoWay, match=r"no base backup: .*spec\.backup\.continuous"):
        choose([], logs, None)


def test_a_moment_far_beyond_the_end_of_the_log_is_refused_before_anything_is_replayed() -> None:
    logs = logs_of(stored(*(file(n) for n in range(3, 8))))
    bases = [base(3, 3, ended_ns=2 * MINUTE)]
    near = 5 * MINUTE + CLOCKS_NS
    assert choose(bases, logs, near).until == Segment(7, 1), "clocks differ: PostgreSQL says it for certain"
    with pytest.raises(NoWay, match=r"the log that is stored ends at about 1970-01-01T00:05:00.*leave --to out"):
        choose(bases, logs, near + 1)


def test_one_that_a_gap_cuts_short_gives_way_to_one_that_reaches_further() -> None:
    logs = logs_of([*stored(*(file(n) for n in range(3, 20))), *stored(file(100), file(102), system="1")])
    short = base(100, 100, ended_ns=12 * MINUTE, system="1", number=2)
    far = base(3, 3, ended_ns=5 * MINUTE, number=1)
    assert choose([short, far], logs, 13 * MINUTE).base.id == far.id
    assert choose([short, far], logs, None).base.id == short.id, "the newest, as far as it goes"


def test_what_no_kept_base_backup_needs() -> None:
    found = stored("00000002.history", *(file(n) for n in range(3, 9)), partial_name(file(8), 1))
    gone = unneeded(found, [base(6, 6), base(5, 5)], 0)
    assert [each.name for each in gone] == [NAMES.wal(SYSTEM, each) for each in (file(3), file(4))] + [
        NAMES.wal(SYSTEM, partial_name(file(8), 1))
    ]


def test_a_log_without_any_base_backup_is_left_for_a_while() -> None:
    found = stored(file(3), file(4), at_ns=1000)
    assert unneeded(found, [], USELESS_AFTER_NS) == ()
    assert len(unneeded(found, [base(3, 3, system="another")], USELESS_AFTER_NS + 2000)) == 2
