"""Looks at a photograph before it is decoded, and decodes it within a bounded amount of memory.

A file of a few kilobytes can claim to be 60000 pixels wide. The header is therefore read here first, in plain Python:
format, size, and whether the file is whole. Only then OpenCV sees it.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from reference_app.problems import Problem

# The decoder's own limit, a second line of defence; it is read when OpenCV is imported.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(80_000_000))
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

cv2.setNumThreads(1)

JPEG, PNG, WEBP = "image/jpeg", "image/png", "image/webp"
FORMATS = (JPEG, PNG, WEBP)

# A baseline JPEG is decoded at a fraction of its size, so it may be as large as telephones make them. The others need
# three bytes for each pixel (a progressive JPEG up to nine) before anything can be made smaller.
MAX_PIXELS_SCALABLE = 64_000_000
MAX_PIXELS_WHOLE = 16_000_000
MIN_SIDE = 16
# Above this many decoded pixels photographs are decoded one after the other.
_LARGE = 4_000_000
_one_large = threading.Lock()

_START_OF_FRAME = frozenset((0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))


@dataclass(frozen=True)
class Header:
    """What a photograph says of itself: media type, width and height in pixels, whether it can be decoded smaller."""

    media_type: str
    width: int
    height: int
    scalable: bool


def _truncated(media_type: str) -> Problem:
    return Problem(
        422, "photo_truncated", f"the photograph starts as {media_type} but ends early: send the whole file again"
    )


def inspect(data: bytes | bytearray | memoryview) -> Header:
    """Reads the header of a whole photograph.

    Raises Problem 400 for nothing at all, 415 for another format, 413 for too many pixels, 422 for one that is
    truncated or too small.
    """
    data = bytes(data) if not isinstance(data, bytes) else data
    if not data:
        raise Problem(400, "photo_empty", "the request carries no photograph: its body has zero bytes")
    if data.startswith(b"\xff\xd8\xff"):
        header = _jpeg(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        header = _png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        header = _webp(data)
    else:
        raise Problem(415, "photo_not_an_image", "the body is no JPEG, PNG or WebP photograph")
    limit = MAX_PIXELS_SCALABLE if header.scalable else MAX_PIXELS_WHOLE
    if header.width * header.height > limit:
        raise Problem(
            413,
            "photo_too_many_pixels",
            f"the photograph is {header.width}x{header.height}; at most {limit // 1_000_000} million pixels are taken "
            f"of this kind",
        )
    if min(header.width, header.height) < MIN_SIDE:
        raise Problem(
            422, "photo_too_small", f"the photograph is {header.width}x{header.height}; each side needs {MIN_SIDE}"
        )
    return header


def _jpeg(data: bytes) -> Header:
    """Walks the segments to the first scan, then looks for the end marker behind it.

    The marker cannot occur within a scan, and a thumbnail's own end lies in a segment before the scan.
    """
    at, size, scalable = 2, None, False
    while True:
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        if at + 4 > len(data):
            raise _truncated(JPEG)
        if data[at] != 0xFF:
            raise Problem(422, "photo_damaged", "the photograph is a JPEG whose segments are damaged")
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in _START_OF_FRAME:
            if at + 9 > len(data):
                raise _truncated(JPEG)
            size = int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
            scalable = marker in (0xC0, 0xC1)
        if marker in (0xDA, 0xD9):
            break
        at += 2 + max(length, 2)
    if size is None:
        raise Problem(422, "photo_damaged", "the photograph is a JPEG without a frame")
    if data.find(b"\xff\xd9", at + 2 + length) < 0:
        raise _truncated(JPEG)
    return Header(JPEG, *size, scalable)


def _png(data: bytes) -> Header:
    """Takes the size from IHDR and walks the chunks to IEND."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise _truncated(PNG)
    at, seen = 8, b""
    while seen != b"IEND":
        if at + 12 > len(data):
            raise _truncated(PNG)
        seen = data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4])
    if at > len(data):
        raise _truncated(PNG)
    return Header(PNG, int.from_bytes(data[16:20]), int.from_bytes(data[20:24]), False)


def _webp(data: bytes) -> Header:
    """Takes the canvas size from whichever of the three kinds of first chunk it is."""
    if len(data) < 30 or len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise _truncated(WEBP)
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        raise Problem(422, "photo_damaged", "the photograph is a WebP of an unknown kind")
    return Header(WEBP, width, height, False)


def decode(data: bytes | bytearray, header: Header, side: int) -> Image:
    """Decodes to blue, green, red with the longer side at most about `side` pixels; raises Problem 422 when damaged."""
    longer = max(header.width, header.height)
    reduction = 1
    while header.scalable and reduction < 8 and longer / (reduction * 2) >= side:
        reduction *= 2
    flags = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }[reduction]
    cost = header.width * header.height // (reduction * reduction if header.scalable else 1)
    if cost > _LARGE:
        with _one_large:
            return _shrink(_decode(data, flags), side)
    return _shrink(_decode(data, flags), side)


def _decode(data: bytes | bytearray, flags: int) -> Image:
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        picture = None
    if picture is None or picture.size == 0:
        raise Problem(422, "photo_damaged", "the photograph cannot be decoded: the file is damaged")
    return np.asarray(picture, np.uint8)


def _shrink(picture: Image, side: int) -> Image:
    longer = max(picture.shape[:2])
    if longer <= side:
        return picture
    factor = side / longer
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
