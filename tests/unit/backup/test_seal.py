"""Sealing: what was sealed opens in constant memory, and every way in which it can be wrong has its own error."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.accounts.keyring import Keyring, parse_keyring
from feedmill.general.backup.seal import (
    ChunkDamaged,
    ChunkForeign,
    ChunkMissing,
    FormatNewer,
    KeyMissing,
    MoreThanWhole,
    NotSealed,
    ObjectCut,
    ObjectMoved,
    SealedError,
    Sealer,
    Unsealer,
    WrongKey,
    seal,
    unseal,
)

KEYS = [base64.b64encode(bytes((7 * n + 31 * i) % 256 for i in range(32))).decode() for n in range(1, 4)]
RING = parse_keyring(f"k1 {KEYS[0]}\n", "keys")
NAME = "default/main/logical/20261126T030000Z-logical-3f9a1c/data"
CHUNK = 64
FRAME, TAG = 16, 16
PLAIN = bytes(range(200))  # Four chunks: 64, 64, 64, 8.


def sealed(
    plain: bytes = PLAIN, name: str = NAME, ring: Keyring = RING, chunk: int = CHUNK
) -> tuple[bytes, list[bytes]]:
    """(header, chunks)."""
    sealer = Sealer(name, ring, chunk)
    pieces = [plain[at : at + chunk] for at in range(0, max(len(plain), 1), chunk)]
    chunks = [sealer.chunk(piece, last=number == len(pieces)) for number, piece in enumerate(pieces, 1)]
    return sealer.header, chunks


def opened(content: bytes, name: str = NAME, ring: Keyring = RING, step: int = 10_000) -> bytes:
    unsealer = Unsealer(name, ring, "s3://bucket/")
    plain = b"".join(part for at in range(0, len(content), step) for part in unsealer.feed(content[at : at + step]))
    unsealer.finish()
    return plain


def open_into(given_out: list[bytes], content: bytes) -> None:
    """Byte by byte."""
    unsealer = Unsealer(NAME, RING)
    for one in content:
        given_out += unsealer.feed(bytes([one]))
    unsealer.finish()


def whole(header: bytes, chunks: list[bytes]) -> bytes:
    return header + b"".join(chunks)


@given(st.binary(max_size=1000), st.integers(1, 400), st.integers(1, 300))
def test_what_was_sealed_opens_whatever_the_pieces(plain: bytes, chunk: int, step: int) -> None:
    content = whole(*sealed(plain, chunk=chunk))
    assert opened(content, step=step) == plain
    assert len(plain) < 16 or plain not in content


async def test_streams_of_any_pieces() -> None:
    async def pieces(content: bytes, size: int) -> AsyncGenerator[bytes, None]:
        for at in range(0, len(content), size):
            yield content[at : at + size]

    for length in (0, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK):
        plain = PLAIN[:1] * length
        content = b"".join([part async for part in seal(pieces(plain, 37), Sealer(NAME, RING, CHUNK))])
        assert b"".join([part async for part in unseal(pieces(content, 91), Unsealer(NAME, RING))]) == plain


def test_two_objects_of_one_content_have_nothing_in_common() -> None:
    (_, one), (_, two) = sealed(), sealed()
    assert not {part[FRAME:] for part in one} & {part[FRAME:] for part in two}


@given(st.data())
def test_every_flipped_bit_is_noticed_before_anything_wrong_is_given_out(data: st.DataObject) -> None:
    content = bytearray(whole(*sealed()))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    given_out: list[bytes] = []
    with pytest.raises(SealedError):
        open_into(given_out, bytes(content))
    assert PLAIN.startswith(b"".join(given_out))


@given(st.integers(0, len(whole(*sealed())) - 1))
def test_every_cut_is_noticed(at: int) -> None:
    with pytest.raises(ObjectCut, match="ends within"):
        opened(whole(*sealed())[:at])


def test_a_cut_between_two_chunks_names_the_chunk() -> None:
    header, chunks = sealed()
    with pytest.raises(ObjectCut, match=r"s3://bucket/: default/main/.*ends within chunk 2"):
        opened(whole(header, chunks[:2]))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((0, 2, 3), "chunk 2 stands where chunk 1 belongs"),
        ((0, 2, 1, 3), "chunk 2 stands where chunk 1 belongs"),
        ((0, 0, 1, 2, 3), "chunk 0 stands where chunk 1 belongs"),
        ((3,), "chunk 3 stands where chunk 0 belongs"),
    ],
)
def test_missing_doubled_and_swapped_chunks(order: tuple[int, ...], message: str) -> None:
    header, chunks = sealed()
    with pytest.raises(ChunkMissing, match=message):
        opened(whole(header, [chunks[at] for at in order]))


def test_a_chunk_with_a_number_that_was_written_over_is_damaged() -> None:
    header, chunks = sealed()
    forged = chunks[2][:8] + struct.pack(">I", 1) + chunks[2][12:]
    with pytest.raises(ChunkDamaged, match="chunk 1 "):
        opened(whole(header, [chunks[0], forged, chunks[3]]))


def test_the_last_chunk_cannot_be_made_of_another() -> None:
    header, chunks = sealed()
    forged = chunks[1][:12] + struct.pack(">I", CHUNK | 1 << 31) + chunks[1][FRAME:]
    with pytest.raises(ChunkDamaged):
        opened(whole(header, [chunks[0], forged]))


def test_a_chunk_of_another_object_is_foreign() -> None:
    header, chunks = sealed()
    _, others = sealed()
    with pytest.raises(ChunkForeign, match="chunk 1 is one of another object"):
        opened(whole(header, [chunks[0], others[1], *chunks[2:]]))


def test_nothing_may_follow_the_last_chunk() -> None:
    with pytest.raises(MoreThanWhole):
        opened(whole(*sealed()) + b"x")


def test_an_object_under_another_name_does_not_open() -> None:
    with pytest.raises(ObjectMoved, match=f"was stored as {NAME}"):
        opened(whole(*sealed()), name=NAME.replace("main", "other"))


def test_wrong_keys_are_told_apart() -> None:
    content = whole(*sealed())
    with pytest.raises(KeyMissing, match="sealed with key 'k1', the key file holds k2, k3"):
        opened(content, ring=parse_keyring(f"k2 {KEYS[1]}\nk3 {KEYS[2]}\n", "keys"))
    with pytest.raises(WrongKey, match="'k1' is another key"):
        opened(content, ring=parse_keyring(f"k1 {KEYS[1]}\n", "keys"))


def test_a_rotated_key_file_opens_what_the_former_key_sealed() -> None:
    rotated = parse_keyring(f"k2 {KEYS[1]}\nk1 {KEYS[0]}\n", "keys")
    assert opened(whole(*sealed()), ring=rotated) == PLAIN
    assert Sealer(NAME, rotated).key_id == "k2"


def test_what_is_no_sealed_object_is_told() -> None:
    with pytest.raises(NotSealed):
        opened(b"PGDMP" + bytes(500))
    with pytest.raises(ObjectCut):
        opened(b"")


def test_a_newer_format_is_told() -> None:
    content = bytearray(whole(*sealed()))
    content[8:10] = struct.pack(">H", 2)
    with pytest.raises(FormatNewer, match="format 2, this version reads 1"):
        opened(bytes(content))


def test_a_sealer_refuses_what_would_break_the_format() -> None:
    sealer = Sealer(NAME, RING, CHUNK)
    with pytest.raises(ValueError, match="wrong size"):
        sealer.chunk(b"short", last=False)
    sealer.chunk(b"short", last=True)
    with pytest.raises(ValueError, match="after the last"):
        sealer.chunk(b"more", last=True)


def test_no_message_and_no_object_tells_a_key() -> None:
    content = whole(*sealed())
    raw = base64.b64decode(KEYS[0])
    assert raw not in content
    assert KEYS[0].encode() not in content
    with pytest.raises(SealedError) as caught:
        opened(content, ring=parse_keyring(f"k1 {KEYS[1]}\n", "keys"))
    assert not any(key in str(caught.value) for key in KEYS)
