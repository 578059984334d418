"""Texts that are remembered: the same as if they were made anew, and not without bound."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from feedmill_operator.build.memo import Memo


class Maker:
    def __init__(self) -> None:
        self.made: list[Mapping[str, Any]] = []

    def __call__(self, document: Mapping[str, Any]) -> str:
        self.made.append(document)
        return json.dumps(document)


def test_a_document_of_the_same_content_is_made_once() -> None:
    maker = Maker()
    memo = Memo(maker, most=1000)
    assert memo({"a": [1, {"b": None}]}) == memo({"a": [1, {"b": None}]}) == '{"a": [1, {"b": null}]}'
    assert len(maker.made) == 1


def test_another_value_type_or_order_is_another_document() -> None:
    maker = Maker()
    memo = Memo(maker, most=1000)
    documents = [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1.0, "b": 2}, {"a": "1", "b": 2}, {"a": True, "b": 2}]
    assert [memo(each) for each in documents] == [json.dumps(each) for each in documents]
    assert len(maker.made) == len(documents)


def test_a_document_changed_in_place_is_another_one() -> None:
    memo = Memo(Maker(), most=1000)
    document = {"a": 1}
    assert memo(document) == '{"a": 1}'
    document["a"] = 2
    assert memo(document) == '{"a": 2}'


def test_the_longest_unused_is_forgotten_beyond_the_bound() -> None:
    maker = Maker()
    memo = Memo(maker, most=24)  # Three texts of eight characters.
    for name in "abc":
        memo({name: 1})
    memo({"a": 1})
    memo({"d": 1})  # "b" goes.
    memo({"a": 1})
    memo({"c": 1})
    assert [next(iter(each)) for each in maker.made] == ["a", "b", "c", "d"]
    memo({"b": 1})
    assert next(iter(maker.made[-1])) == "b"


def test_a_text_beyond_the_bound_is_given_and_not_kept() -> None:
    maker = Maker()
    memo = Memo(maker, most=5)
    assert memo({"long": "text"}) == memo({"long": "text"}) == '{"long": "text"}'
    assert len(maker.made) == 2
