"""Photographs through a frozen backbone, each once."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from weakseg.ahead import map_ahead
from weakseg.dataset import Entry
from weakseg.errors import InputError
from weakseg.features.cache import FeatureCache, Stamp
from weakseg.files import content_hash, file_stamp
from weakseg.models import Backbone

Item = tuple[Entry, str, Stamp | None]
"""An image to compute, the key of its content, and its file's stamp."""

PRECISIONS = ("auto", "fp32", "bf16")

_FORMAT = 1  # counts up whenever stored features would change
_COMMIT_EVERY = 5.0  # seconds of work that a killed run may lose
_WAITING = 64  # images held back to be batched with others of their size


def resized_size(height: int, width: int, long_side: int | None) -> tuple[int, int]:
    """(height, width) at which the backbone sees an image: its longer side is `long_side`."""
    if long_side is None:
        return height, width
    scale = long_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def feature_size(height: int, width: int, long_side: int | None, stride: int) -> tuple[int, int]:
    """(h, w) of the feature grid of an image of this height and width."""
    resized = resized_size(height, width, long_side)
    return math.ceil(resized[0] / stride), math.ceil(resized[1] / stride)


def compute_features(
    backbone: Backbone,
    image: NDArray[np.uint8],
    *,
    long_side: int | None = 416,
    stride: int = 8,
    precision: str = "auto",
) -> Tensor:
    """Features of one photograph, on the backbone's device.

    Args:
        backbone: frozen, in eval mode.
        image: (H, W, 3) uint8 RGB.
        long_side: resize the image so that its longer side has this many pixels; None: don't.
        stride: pixels of the resized image between neighbouring positions.
        precision: "fp32", "bf16", or "auto": bf16 where the device multiplies it natively.

    Returns:
        (C, h, w) float32, C = sum of `backbone.channels`, h and w as `feature_size` says.
    """
    batch = torch.from_numpy(_resize(image, long_side))[None]
    return _forward(backbone, batch, stride, precision)[0]


def extract_features(
    entries: Iterable[Entry],
    backbone: Backbone,
    *,
    cache_dir: str | os.PathLike[str],
    long_side: int | None = 416,
    stride: int = 8,
    precision: str = "auto",
    batch_size: int = 4,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """Features of all images of a data set, from the cache where they are there.

    An image is known by its content: moving or renaming it costs no recomputation. A run that
    was killed goes on where it stopped.

    Args:
        entries: images, a `Dataset` for example.
        backbone: frozen, on the device to compute on. Put in eval mode and channels-last
            memory format.
        cache_dir: one subfolder of it holds the features of this backbone at these settings.
        long_side: as in `compute_features`.
        stride: as in `compute_features`.
        precision: as in `compute_features`.
        batch_size: images of equal size computed together.
        workers: threads that read and resize images.
        progress: called with (done, total) images.

    Returns:
        `cache[i]` belongs to the i-th entry.

    Raises:
        InputError: an image that cannot be read, or no room on disk. What was computed stays.
    """
    entries = entries if isinstance(entries, Sequence) else list(entries)
    precision = resolve_precision(precision, backbone.mean.device)
    backbone = backbone.eval().to(memory_format=torch.channels_last)
    settings = content_hash(
        [_FORMAT, backbone.name, backbone.strides, backbone.channels, long_side, stride],
        [precision, backbone.fingerprint()],
    )
    folder = Path(cache_dir) / f"{backbone.name}-{settings}"
    cache = FeatureCache(folder, sum(backbone.channels))
    keys: list[str] = []
    done = 0

    def advance(images: int) -> None:
        nonlocal done
        done += images
        if progress is not None:
            progress(done, len(entries))

    with cache.writing():
        _check_room(cache, entries, long_side, stride)
        committed = time.monotonic()
        missing = _missing(entries, cache, keys, advance)
        for batch, images in _batches(missing, long_side, batch_size, workers):
            features = _forward(backbone, images, stride, precision)
            for (_, key, stamp), one in zip(batch, features, strict=True):
                cache.append(key, one, stamp)
            advance(len(batch))
            if time.monotonic() - committed > _COMMIT_EVERY:
                cache.commit()
                committed = time.monotonic()
    return cache.select(keys)


def resolve_precision(precision: str, device: torch.device) -> str:
    """What "auto" stands for on this device: "bf16" where its processor has it, else "fp32"."""
    if precision not in PRECISIONS:
        raise InputError("unknown precision", found=precision, rule=", ".join(PRECISIONS))
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
    return "fp32"


@torch.inference_mode()
def _forward(backbone: Backbone, images: Tensor, stride: int, precision: str) -> Tensor:
    """(B, C, h, w) float32 features of (B, H, W, 3) uint8 images."""
    device = backbone.mean.device
    bf16 = resolve_precision(precision, device) == "bf16"
    # The permuted view of (B, H, W, 3) is channels last already, what oneDNN and cuDNN want.
    batch = images.to(device).permute(0, 3, 1, 2).float() / 255
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        return backbone.stacked(batch, stride).float()


def _resize(image: NDArray[np.uint8], long_side: int | None) -> NDArray[np.uint8]:
    height, width = resized_size(image.shape[0], image.shape[1], long_side)
    if (height, width) == image.shape[:2]:
        return np.array(image)  # a copy: torch wants arrays that it could write to
    # Width first, then height: left to itself, Pillow takes the order that is faster, and which
    # that is changes with its version; so would the last bits, and features with them.
    narrowed = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BICUBIC)
    return np.array(narrowed.resize((width, height), Image.Resampling.BICUBIC))


def _identify(entry: Entry, cache: FeatureCache) -> tuple[str, Stamp | None]:
    """Key of an image's content; the file is read only if it is new or was touched."""
    if isinstance(entry.image, np.ndarray):
        return content_hash(entry.image), None
    try:
        stamp = file_stamp(entry.image)
        key = cache.key_of(stamp)
        if key is None:
            key = content_hash(entry.image)
            if key in cache:
                cache.alias(key, stamp)
    except OSError as error:
        raise InputError("no such image", file=entry.image, found=error.strerror) from error
    return key, stamp


def _missing(
    entries: Iterable[Entry],
    cache: FeatureCache,
    keys: list[str],
    advance: Callable[[int], None],
) -> Iterator[Item]:
    """The images to compute, each content once; appends the key of every entry to `keys`."""
    coming: set[str] = set()
    for entry in entries:
        key, stamp = _identify(entry, cache)
        keys.append(key)
        if key in cache or key in coming:
            advance(1)
        else:
            coming.add(key)
            yield entry, key, stamp


def _check_room(
    cache: FeatureCache, entries: Sequence[Entry], long_side: int | None, stride: int
) -> None:
    """Refuse to start what cannot end for want of disk space."""

    def needed(entry: Entry) -> int:
        h, w = feature_size(entry.height, entry.width, long_side, stride)
        return h * w * cache.channels * 2

    free = shutil.disk_usage(cache.folder).free
    if sum(map(needed, entries)) < free:
        return
    missing = sum(needed(entry) for entry, *_ in _missing(entries, cache, [], lambda _: None))
    if missing > free:
        raise InputError(
            "no room for the features",
            file=cache.folder,
            found=f"{free // 10**6:,} MB free",
            rule=f"{missing // 10**6 + 1:,} MB, or a smaller long side",
        )


def _batches(
    items: Iterable[Item], long_side: int | None, batch_size: int, workers: int
) -> Iterator[tuple[list[Item], Tensor]]:
    """Images of equal size together, read ahead by `workers` threads."""
    waiting: dict[tuple[int, ...], list[tuple[Item, NDArray[np.uint8]]]] = {}

    def read(item: Item) -> tuple[Item, NDArray[np.uint8]]:
        return item, _resize(item[0].read_image(), long_side)

    for item, image in map_ahead(read, items, workers):
        group = waiting.setdefault(image.shape, [])
        group.append((item, image))
        if sum(map(len, waiting.values())) >= _WAITING:
            group = max(waiting.values(), key=len)
        if len(group) >= batch_size or sum(map(len, waiting.values())) >= _WAITING:
            yield _collate(waiting.pop(group[0][1].shape))
    for group in waiting.values():
        yield _collate(group)


def _collate(group: list[tuple[Item, NDArray[np.uint8]]]) -> tuple[list[Item], Tensor]:
    return [item for item, _ in group], torch.from_numpy(np.stack([image for _, image in group]))
