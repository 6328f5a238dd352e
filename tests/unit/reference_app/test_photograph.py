"""Whatever is posted is judged by its header first, and refused with a reason."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from reference_app.domains.medical_inventory import detector, model, photograph
from reference_app.domains.medical_inventory.generator import photograph as generate
from reference_app.problems import Problem

PHOTO = generate(3, 5).jpeg
PICTURE = cv2.imdecode(np.frombuffer(PHOTO, np.uint8), cv2.IMREAD_COLOR)
PNG = cv2.imencode(".png", PICTURE)[1].tobytes()
WEBP = cv2.imencode(".webp", PICTURE, [cv2.IMWRITE_WEBP_QUALITY, 80])[1].tobytes()
LOSSLESS = cv2.imencode(".webp", PICTURE, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
PROGRESSIVE = cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()


def refused(data: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        detector.detect(data, photograph.inspect(data), model.built_in())
    assert 400 <= caught.value.status < 500
    return caught.value


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">II", width, height) + bytes((8, 2, 0, 0, 0))
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("data", "media_type", "scalable"),
    [
        (PHOTO, "image/jpeg", True),
        (PROGRESSIVE, "image/jpeg", False),
        (PNG, "image/png", False),
        (WEBP, "image/webp", False),
        (LOSSLESS, "image/webp", False),
    ],
    ids=["jpeg", "progressive", "png", "webp", "lossless"],
)
def test_headers_are_read(data: bytes, media_type: str, scalable: bool) -> None:
    assert photograph.inspect(data) == photograph.Header(media_type, 1280, 960, scalable)


@pytest.mark.parametrize("data", [PHOTO, PROGRESSIVE, PNG, WEBP, LOSSLESS])
def test_every_truncation_is_refused(data: bytes) -> None:
    for length in [3, 4, 11, 12, 20, 29, 30, 40, *range(50, len(data) - 1, len(data) // 40), len(data) - 2]:
        problem = refused(data[:length])
        assert problem.status in (415, 422), (length, problem)


def test_a_thumbnail_inside_does_not_hide_a_truncation() -> None:
    thumbnail = cv2.imencode(".jpg", cv2.resize(PICTURE, (160, 120)))[1].tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Exif\0\0" + thumbnail
    whole = PHOTO[:2] + segment + PHOTO[2:]
    assert photograph.inspect(whole).width == 1280
    assert refused(whole[: len(whole) // 2]).code == "photo_truncated"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "photo_empty"),
        (b"hello", 415, "photo_not_an_image"),
        (b"GIF89a" + b"\0" * 100, 415, "photo_not_an_image"),
        (b"<svg/>", 415, "photo_not_an_image"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + b"\x00" * 64, 422, "photo_damaged"),
        (b"\xff\xd8\xff\xd9", 422, "photo_truncated"),
        (b"RIFF\xff\xff\xff\x00WEBPVP8 " + b"\0" * 50, 422, "photo_truncated"),
        (b"\x89PNG\r\n\x1a\n", 422, "photo_truncated"),
        (png_header(60_000, 60_000), 413, "photo_too_many_pixels"),
        (png_header(5000, 5000), 413, "photo_too_many_pixels"),
        (png_header(0, 0), 422, "photo_too_small"),
        (png_header(8, 8), 422, "photo_too_small"),
        (png_header(100, 100), 422, "photo_damaged"),
    ],
)
def test_what_is_no_photograph_is_refused(data: bytes, status: int, code: str) -> None:
    problem = refused(data)
    assert (problem.status, problem.code) == (status, code)
    assert problem.message


def test_a_jpeg_that_claims_to_be_huge_is_refused_unseen() -> None:
    at = PHOTO.index(b"\xff\xc0")
    huge = PHOTO[: at + 5] + struct.pack(">HH", 65000, 65000) + PHOTO[at + 9 :]
    assert refused(huge).code == "photo_too_many_pixels"


def test_damaged_bytes_never_end_in_anything_else() -> None:
    rng = np.random.default_rng(7)
    for data in (PHOTO, PNG, WEBP):
        for _ in range(20):
            broken = bytearray(data)
            for at in rng.integers(0, len(data), 12):
                broken[at] = int(rng.integers(256))
            try:
                detector.detect(bytes(broken), photograph.inspect(bytes(broken)), model.built_in())
            except Problem as problem:
                assert 400 <= problem.status < 500


def test_a_large_baseline_jpeg_is_decoded_small() -> None:
    large = cv2.imencode(".jpg", cv2.resize(PICTURE, (8000, 6000)))[1].tobytes()
    header = photograph.inspect(large)
    assert max(photograph.decode(large, header, 640).shape) <= 1000
