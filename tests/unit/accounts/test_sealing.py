"""Envelope encryption: what was sealed opens, and nothing else does; messages hold nothing of it."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedmill.accounts.keyring import KeyFile, Keyring, KeyringError, parse_keyring
from feedmill.accounts.sealing import MAX_SECRET_BYTES, Place, Sealed, SealError, open_sealed, rewrap, seal

KEYS = [bytes((7 * n + 31 * i) % 256 for i in range(32)) for n in range(1, 4)]
TEXTS = [base64.b64encode(key).decode() for key in KEYS]
RING = parse_keyring(f"k1 {TEXTS[0]}\n", "keys")
PLACE = Place(7, "binance/Spot/Production", "apiSecret", 1)

# With a word that no message has: Hypothesis also draws texts that stand in our own source, such as "binance/Spot".
secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=12, max_size=200).map("planted{}".format)
places = st.builds(
    Place, st.integers(1, 10**6), st.sampled_from(["a/b/c", "a/b,c", 'a","b']), st.text(max_size=8), st.integers(1, 99)
)


@given(secrets, places)
def test_what_was_sealed_opens(secret: str, place: Place) -> None:
    sealed = seal(RING, place, secret)
    assert open_sealed(RING, place, sealed) == secret
    assert secret.encode() not in sealed.ciphertext + sealed.wrapped_key
    assert secret not in repr(sealed)


@given(secrets)
def test_two_seals_of_one_secret_have_nothing_in_common(secret: str) -> None:
    one, two = seal(RING, PLACE, secret), seal(RING, PLACE, secret)
    assert one.ciphertext != two.ciphertext
    assert one.wrapped_key[:12] != two.wrapped_key[:12]


@given(secrets, st.data())
def test_any_flipped_bit_is_noticed(secret: str, data: st.DataObject) -> None:
    sealed = seal(RING, PLACE, secret)
    name = data.draw(st.sampled_from(["ciphertext", "wrapped_key"]))
    blob = bytearray(getattr(sealed, name))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealError) as caught:
        open_sealed(RING, PLACE, replace(sealed, **{name: bytes(blob)}))
    assert secret not in str(caught.value)
    assert str(PLACE) in str(caught.value)


@given(secrets, st.data())
def test_a_torn_blob_is_noticed(secret: str, data: st.DataObject) -> None:
    sealed = seal(RING, PLACE, secret)
    name = data.draw(st.sampled_from(["ciphertext", "wrapped_key"]))
    blob = getattr(sealed, name)
    with pytest.raises(SealError):
        open_sealed(RING, PLACE, replace(sealed, **{name: blob[: data.draw(st.integers(0, len(blob) - 1))]}))


@given(secrets, places, places)
def test_it_opens_in_its_own_place_only(secret: str, one: Place, two: Place) -> None:
    sealed = seal(RING, one, secret)
    if one == two:
        assert open_sealed(RING, two, sealed) == secret
        return
    with pytest.raises(SealError) as caught:
        open_sealed(RING, two, sealed)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("other", [
    replace(PLACE, account=8), replace(PLACE, venue="binance/Spot/Testnet"), replace(PLACE, field="apiKey"),
    replace(PLACE, version=2),
])  # fmt: skip
def test_each_part_of_the_place_counts(other: Place) -> None:
    with pytest.raises(SealError, match="changed or moved"):
        open_sealed(RING, other, seal(RING, PLACE, "planted-secret"))


def test_parts_of_two_rows_do_not_go_together() -> None:
    mine, theirs = seal(RING, PLACE, "planted-mine"), seal(RING, replace(PLACE, account=8), "planted-theirs")
    for mixed in (replace(mine, ciphertext=theirs.ciphertext), replace(mine, wrapped_key=theirs.wrapped_key)):
        with pytest.raises(SealError) as caught:
            open_sealed(RING, PLACE, mixed)
        assert "planted" not in str(caught.value)


def test_another_key_does_not_open_it() -> None:
    sealed = seal(RING, PLACE, "planted-secret")
    with pytest.raises(SealError, match="wrapped by key 'k1', the key file holds k2: put that key back"):
        open_sealed(parse_keyring(f"k2 {TEXTS[1]}", "keys"), PLACE, sealed)
    with pytest.raises(SealError, match="key 'k1' does not open it") as caught:
        open_sealed(parse_keyring(f"k1 {TEXTS[1]}", "keys"), PLACE, sealed)
    assert "planted" not in str(caught.value)
    assert not any(text in str(caught.value) for text in TEXTS)


@given(secrets)
def test_rewrapping_changes_the_key_and_not_the_secret(secret: str) -> None:
    old = seal(RING, PLACE, secret)
    both = parse_keyring(f"k2 {TEXTS[1]}\nk1 {TEXTS[0]}", "keys")
    new = rewrap(both, PLACE, old)
    assert (new.key_id, new.ciphertext) == ("k2", old.ciphertext)
    assert open_sealed(parse_keyring(f"k2 {TEXTS[1]}", "keys"), PLACE, new) == secret
    with pytest.raises(SealError):
        open_sealed(RING, PLACE, new)
    with pytest.raises(SealError):
        rewrap(both, replace(PLACE, account=8), old)


@pytest.mark.parametrize("secret", ["", "x" * (MAX_SECRET_BYTES + 1)])
def test_no_secret_and_too_much_of_one(secret: str) -> None:
    with pytest.raises(SealError, match="1 to 16384 bytes"):
        seal(RING, PLACE, secret)


def test_a_format_of_later_versions() -> None:
    with pytest.raises(SealError, match="upgrade feedmill"):
        open_sealed(RING, PLACE, Sealed(2, "k1", b"", b""))


def test_the_first_key_wraps_and_all_unwrap() -> None:
    ring = parse_keyring(f"# new\nk2  {KEYS[1].hex()}\n\nk1\t{TEXTS[0]}\n", "keys")
    assert (ring.current, ring.ids) == ("k2", ("k2", "k1"))
    assert open_sealed(ring, PLACE, seal(RING, PLACE, "planted")) == "planted"
    assert seal(ring, PLACE, "planted").key_id == "k2"
    assert repr(ring) == "Keyring(current='k2', ids=('k2', 'k1'))"


@pytest.mark.parametrize(("text", "message"), [
    ("", "holds no key"),
    ("# only this", "holds no key"),
    (TEXTS[0], "line 1: is not an id and a key"),
    (f"k1 {TEXTS[0]} more", "line 1: is not an id and a key"),
    (f"-k {TEXTS[0]}", "line 1: is not an id and a key"),
    ("k1 " + TEXTS[0][:20], "line 1: the key is not 32 bytes"),
    ("k1 " + "é" * 43, "line 1: the key is not 32 bytes"),
    ("k1 " + "00" * 32, "line 1: the key is not random"),
    (f"k1 {TEXTS[0]}\nk1 {TEXTS[1]}", "line 2: the id k1 stands in an earlier line"),
    (f"k1 {TEXTS[0]}\nk2 {TEXTS[0]}", "line 2: the key stands in an earlier line"),
])  # fmt: skip
def test_key_files_that_are_wrong(text: str, message: str) -> None:
    with pytest.raises(KeyringError, match=f"keys.*{message}") as caught:
        parse_keyring(text, "keys")
    assert not any(part in str(caught.value) for part in (TEXTS[0], TEXTS[0][:20], "00" * 32))


def test_a_changed_file_is_taken_up_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "kek"
    keys = KeyFile(file)
    with pytest.raises(Exception, match=r"the key file .*kek: there is no file"):
        keys.ring()
    file.write_text(f"k1 {TEXTS[0]}")
    first: Keyring = keys.ring()
    assert (first.ids, keys.ring() is first, keys.error) == (("k1",), True, "")
    # As the kubelet does it: another file under the same name.
    other = tmp_path / "next"
    other.write_text(f"k2 {TEXTS[1]}\nk1 {TEXTS[0]}")
    other.replace(file)
    assert keys.ring().ids == ("k2", "k1")
    file.write_text("broken")
    assert keys.ring().ids == ("k2", "k1")
    assert "line 1: is not an id and a key" in keys.error
    file.unlink()
    assert keys.ring().current == "k2"
    assert "there is no file" in keys.error
    file.write_text(f"k2 {TEXTS[1]}")
    assert (keys.ring().ids, keys.error) == (("k2",), "")
