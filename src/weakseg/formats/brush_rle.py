"""The run lengths of Label Studio's brush: the bit stream of the package @thi.ng/rle-pack.

A header (32 bits: number of values; 5: bits of a value less one; 4 times 4: bits of the four
sizes of lengths, less one), then runs: one bit that says whether a single value is repeated, two
that choose a size of length, the length less one, and the value or the values. A mask is an RGBA
image, of which the last channel counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weakseg.errors import InputError
from weakseg.formats.rasters import Patch

_SIZES = (3, 4, 8, 16)


@dataclass(frozen=True)
class Brush:
    """A brushed mask of a whole image, decoded when it is drawn.

    Args:
        label: the class.
        data: the packed bytes.
    """

    label: str
    data: bytes

    def draw(self, size: tuple[int, int]) -> Patch:
        """The pixels in an image of `size` = (H, W)."""
        return Patch((0, 0), unpack_mask(self.data, size))


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def read(self, count: int) -> int:
        first, last = self.at // 8, (self.at + count + 7) // 8
        if last > len(self.data):
            raise InputError("brush mask cut off", found=f"{len(self.data)} bytes")
        self.at += count
        number = int.from_bytes(self.data[first:last], "big")
        return number >> (last * 8 - self.at) & ((1 << count) - 1)


def unpack_mask(data: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of `size` = (H, W) that a brush has touched.

    Raises:
        InputError: cut off, or of another size.
    """
    bits = _Bits(data)
    number, expected = bits.read(32), size[0] * size[1] * 4
    if number != expected:
        found, rule = f"{number} values", f"{expected}, four for each pixel"
        raise InputError("brush mask of another size", found=found, rule=rule)
    word = bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    values = np.zeros(number, bool)
    at = 0
    while at < number:
        repeated = bits.read(1)
        end = at + 1 + bits.read(sizes[bits.read(2)])
        if end > number:
            raise InputError("brush mask is longer than it says", found=f"{end}, {number}")
        if repeated:
            values[at:end] = bits.read(word) > 0
        else:
            for i in range(at, end):
                values[i] = bits.read(word) > 0
        at = end
    return values.reshape(*size, 4)[:, :, 3]


def pack_mask(inside: NDArray[np.bool_]) -> bytes:
    """The inverse of `unpack_mask`, with 255 in all channels of touched pixels."""
    flat = inside.reshape(-1)
    starts = np.flatnonzero(np.diff(flat, prepend=not flat[0]))
    lengths = np.diff([*starts, flat.size]) * 4
    parts = [f"{flat.size * 4:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for value, length in zip(flat[starts].tolist(), lengths.tolist(), strict=True):
        while length:
            run = min(length, 1 << _SIZES[-1])
            choice = next(i for i, size in enumerate(_SIZES) if run <= 1 << size)
            parts.append(f"1{choice:02b}{run - 1:0{_SIZES[choice]}b}{255 * value:08b}")
            length -= run
    text = "".join(parts)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")
