"""ONNX and TorchScript files of a trained model, each compared with the model before it is kept."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from weakseg.errors import InputError
from weakseg.files import write_bytes
from weakseg.portable.network import PortableSegmenter
from weakseg.segmenter import Segmenter

FORMATS = ("onnx", "torchscript")

TOLERANCE = 1e-3
"""Largest difference of a probability between a file and its model."""

Runner = Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.float32]]]
"""(B, H, W, 3) uint8 images in; masks (B, H, W) and scores (B, C, H, W) out."""

_OPSET = 18
_FREE = {
    "image": {0: "batch", 1: "height", 2: "width"},
    "mask": {0: "batch", 1: "height", 2: "width"},
    "scores": {0: "batch", 2: "height", 3: "width"},
}


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from its model.

    Attributes:
        scores: largest difference of a class probability.
        mask: share of pixels whose class differs.
    """

    scores: float
    mask: float


def export_model(segmenter: Segmenter, file: str | Path, *, format: str = "onnx") -> Parity:
    """Write a model to one file that runs without weakseg: photographs in, masks out.

    Inside: resizing to the training size (`Architecture.long_side`; bicubic, equal to Pillow's
    to the bit), normalisation, backbone, head, classifier, softmax, random walk, enlarging to the
    size of the photograph. Batch and image size are free. Outside: reading files and turning them
    as their EXIF tag says; flips, further scales and the CRF of `Segmenter.predict`.

    The input `image` is (B, H, W, 3) uint8 RGB (TorchScript also takes floats of 0 to 255), the
    outputs are `mask` (B, H, W) uint8 and `scores` (B, C, H, W) float32 probabilities. Classes,
    background and ignore value are in the file as JSON: in ONNX's metadata under `weakseg`, in
    TorchScript's extra file `weakseg.json`.

    Args:
        segmenter: trained.
        file: to write; replaced if it is there.
        format: "onnx" (needs the packages onnx and onnxruntime) or "torchscript".

    Returns:
        How far the file is from the model, on images of several sizes.

    Raises:
        InputError: unknown format, missing package, a backbone that this format cannot express
            with free sizes, or probabilities that differ by more than `TOLERANCE`.
    """
    if format not in FORMATS:
        raise InputError("unknown format of model", found=format, rule=" or ".join(FORMATS))
    convert, runner = {
        "onnx": (_to_onnx, onnx_runner),
        "torchscript": (_to_torchscript, torchscript_runner),
    }[format]
    if format == "onnx":
        _need("onnx", "onnxruntime")
    network = PortableSegmenter(segmenter)
    try:
        with torch.inference_mode(), _quiet():
            data = convert(network, json.dumps(_description(segmenter)))
            parity = compare(segmenter, runner(data))
        reason = f"probabilities that differ by {parity.scores:.2g}"
    except Exception as error:  # exporters and runtimes have classes of their own
        raise _inexpressible(segmenter, format, str(error)) from error
    if not parity.scores <= TOLERANCE:
        raise _inexpressible(segmenter, format, reason)
    write_bytes(file, data)
    return parity


def compare(segmenter: Segmenter, run: Runner) -> Parity:
    """Differences between a file and `Segmenter.predict` in float32, on patterns of any size."""
    model = copy.copy(segmenter)
    model.precision = "fp32"
    long = segmenter.architecture.long_side
    scores, different, pixels = 0.0, 0, 0
    shapes = [(2, long * 3 // 4, long), (1, long, long), (1, long + 37, long // 3)]
    for shape in [*shapes, (1, long, long * 3 // 2 + 5)]:
        images = _patterns(shape)
        masks, probabilities = run(images)
        for image, mask, found in zip(images, masks, probabilities, strict=True):
            wanted = model.predict(image, probabilities=True)
            assert wanted.probabilities is not None
            scores = max(scores, float(np.abs(found - wanted.probabilities).max()))
            different += int((mask != wanted.mask).sum())
            pixels += mask.size
    return Parity(scores, different / pixels)


def onnx_runner(data: bytes) -> Runner:
    """Runs an ONNX file with onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is raised as well
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        mask, scores = session.run(["mask", "scores"], {"image": images})
        return mask, scores

    return run


def torchscript_runner(data: bytes) -> Runner:
    """Runs a TorchScript file."""
    jit: Any = torch.jit
    module = jit.load(io.BytesIO(data))

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        mask, scores = module(torch.from_numpy(images))
        return mask.numpy(), scores.numpy()

    return run


def _to_onnx(network: PortableSegmenter, description: str) -> bytes:
    # The exporter that traces: torch.export cannot follow sizes that are computed with rounding.
    import onnx

    exporter: Any = torch.onnx
    buffer = io.BytesIO()
    exporter.export(
        network,
        (_example(network),),
        buffer,
        input_names=["image"],
        output_names=["mask", "scores"],
        dynamic_axes=_FREE,
        opset_version=_OPSET,
        dynamo=False,
    )
    model = onnx.load_from_string(buffer.getvalue())
    classes = network.classifier.out.out_features
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_value = classes
    onnx.helper.set_model_props(model, {"weakseg": description})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _to_torchscript(network: PortableSegmenter, description: str) -> bytes:
    jit: Any = torch.jit
    traced = jit.trace(network, (_example(network),), check_trace=False)
    buffer = io.BytesIO()
    jit.save(traced, buffer, _extra_files={"weakseg.json": description})
    return buffer.getvalue()


def _example(network: PortableSegmenter) -> Tensor:
    """What is traced: its sizes divide by nothing, so that no step is a special case."""
    side = network.long_side
    return torch.from_numpy(_patterns((2, side * 3 // 4 + 3, side + 5)))


def _patterns(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """(B, H, W, 3) smooth blobs with grain."""
    batch, height, width = shape[0], max(1, shape[1]), max(1, shape[2])
    rng = np.random.default_rng(height + width)
    coarse = torch.from_numpy(rng.uniform(0, 255, (batch, 3, 5, 6)))
    smooth = F.interpolate(coarse, (height, width), mode="bilinear").permute(0, 2, 3, 1).numpy()
    grainy = smooth + rng.normal(0, 10, smooth.shape)
    return grainy.clip(0, 255).astype(np.uint8)


def _description(segmenter: Segmenter) -> dict[str, Any]:
    info = segmenter.info
    return {
        "name": info.name,
        "classes": list(info.classes),
        "background": info.background,
        "ignore": info.ignore,
        "long_side": segmenter.architecture.long_side,
        "backbone": segmenter.architecture.backbone,
    }


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            "packages are missing for ONNX",
            found=f"no {', '.join(missing)}",
            rule="pip install weakseg[onnx]",
        )


def _inexpressible(segmenter: Segmenter, format: str, reason: str) -> InputError:
    return InputError(
        f"backbone {segmenter.backbone.name} cannot be exported as {format} with free sizes",
        found=reason.strip().partition("\n")[0],
        rule="a convolutional backbone such as tf_efficientnet_lite0 or resnet50",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters from warning of branches that `PortableSegmenter` has not.

    And from printing their graphs where they fail.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
