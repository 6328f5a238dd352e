"""Counting and naming is right on photographs whose truth is known, and sensible on others."""

from __future__ import annotations

import hashlib
from collections import Counter

import cv2
import numpy as np
import pytest
from reference_app.domains.medical_inventory import detector, model, photograph
from reference_app.domains.medical_inventory.generator import Photograph
from reference_app.domains.medical_inventory.generator import photograph as generate

MODEL = model.built_in()


def items_on(data: bytes) -> list[detector.Item]:
    return detector.detect(data, photograph.inspect(data), MODEL)


def counts_on(data: bytes) -> dict[str, int]:
    return dict(sorted(Counter(item.label for item in items_on(data)).items()))


def encoded(picture: np.ndarray, kind: str = ".jpg") -> bytes:
    return cv2.imencode(kind, picture)[1].tobytes()


@pytest.mark.parametrize(("items", "seeds"), [(20, range(9000, 9024)), (60, range(9100, 9104)), (1, range(9200, 9204))])
def test_generated_photographs_are_counted_and_named(items: int, seeds: range) -> None:
    wrong = []
    for seed in seeds:
        drawn = generate(seed, items)
        if counts_on(drawn.jpeg) != drawn.counts:
            wrong.append((seed, drawn.counts, counts_on(drawn.jpeg)))
    print(f"{len(seeds) - len(wrong)} of {len(seeds)} photographs with {items} items are right in every label")
    assert len(wrong) <= len(seeds) // 50, wrong


def test_boxes_lie_around_the_items() -> None:
    drawn = generate(9300)
    found = items_on(drawn.jpeg)
    for true in drawn.truth:
        near = min(
            found, key=lambda item: abs(item.x + item.width / 2 - true.x) + abs(item.y + item.height / 2 - true.y)
        )
        assert abs(near.x + near.width / 2 - true.x) < 8
        assert abs(near.y + near.height / 2 - true.y) < 8
        assert near.label == true.label


def test_items_that_touch_are_counted_apart() -> None:
    right = 0
    for gap in range(-1, 3):
        picture = np.full((960, 1280, 3), (92, 74, 66), np.uint8)
        for x in (300, 300 + 120 + gap):
            cv2.circle(picture, (x, 400), 60, (80, 158, 52), cv2.FILLED, cv2.LINE_AA)
        right += counts_on(encoded(picture)) == {"bottle": 2}
    assert right == 4, f"{right} of 4"


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
def test_formats_agree(kind: str) -> None:
    drawn = generate(9400)
    picture = cv2.imdecode(np.frombuffer(drawn.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert counts_on(encoded(picture, kind)) == drawn.counts


@pytest.mark.parametrize("side", [640, 2560, 4000])
def test_resolutions_agree(side: int) -> None:
    drawn = generate(9401)
    picture = cv2.imdecode(np.frombuffer(drawn.jpeg, np.uint8), cv2.IMREAD_COLOR)
    resized = cv2.resize(picture, (side, side * 3 // 4), interpolation=cv2.INTER_AREA)
    assert counts_on(encoded(resized)) == drawn.counts


def test_an_empty_table_and_plain_pictures_hold_nothing() -> None:
    assert counts_on(generate(9402, 0).jpeg) == {}
    for grey in (0, 128, 255):
        assert counts_on(encoded(np.full((480, 640, 3), grey, np.uint8))) == {}


def test_noise_is_answered_without_failing() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (480, 640, 3), np.uint8)
    assert len(items_on(encoded(noise))) < detector.MAX_ITEMS


def test_what_has_no_label_is_counted_as_unknown() -> None:
    picture = np.full((480, 640, 3), (92, 74, 66), np.uint8)
    triangle = np.array([[100, 100], [300, 110], [180, 320]], np.int32)
    cv2.fillPoly(picture, [triangle], (10, 220, 240))
    assert counts_on(encoded(picture)) == {"unknown": 1}


def test_the_same_seed_draws_the_same_photograph() -> None:
    first, again, other = generate(1), generate(1), generate(2)
    assert hashlib.sha256(first.jpeg).digest() == hashlib.sha256(again.jpeg).digest()
    assert first.jpeg != other.jpeg
    assert 250_000 < len(first.jpeg) < 350_000
    assert sum(first.counts.values()) == 20


@pytest.mark.parametrize("items", [-1, 61])
def test_the_generator_refuses_what_does_not_fit(items: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 60"):
        generate(1, items)


def test_no_item_overlaps_another_or_the_edge() -> None:
    def corners(drawn: Photograph) -> None:
        for item in drawn.truth:
            reach = float(np.hypot(item.length, item.width))
            assert reach <= item.x + 1
            assert reach <= item.y + 1

    for seed in range(20):
        corners(generate(seed, 60))
