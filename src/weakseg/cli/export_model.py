"""`weakseg export model`: a trained model as one file that runs without weakseg."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console

from weakseg.errors import InputError
from weakseg.portable import export_model as write_model
from weakseg.segmenter import Segmenter

SUFFIXES = {".onnx": "onnx", ".pt": "torchscript", ".pth": "torchscript", ".ts": "torchscript"}

FOREIGN = (".tflite", ".mlmodel", ".mlpackage", ".engine", ".trt", ".pb", ".h5", ".keras")
"""Names that promise a format which is not written."""


def export_model(run: Path, out: Path, format: Literal["onnx", "torchscript"] = "onnx") -> int:
    """Write a trained model to one file: photographs in, masks and class probabilities out.

    Resizing to the training size and normalisation are inside; batch and image size are free.
    The file is compared with the model before it is written. docs/models.md shows how to run it.

    Args:
        run: Run folder of `weakseg train`.
        out: File to write.
        format: onnx (needs the packages onnx and onnxruntime) or torchscript.

    Returns:
        0 if it was written, 1 if the input is bad.
    """
    suffix = out.suffix.lower()
    if suffix in FOREIGN:
        rule = "a name ending in .onnx, which that format's own tools convert, or in .pt"
        raise InputError("weakseg writes ONNX and TorchScript", file=out, found=suffix, rule=rule)
    if SUFFIXES.get(suffix, format) != format:
        rule = f"--format {SUFFIXES[suffix]}, or another name"
        raise InputError(f"{out.suffix} is no {format} file", file=out, rule=rule)
    segmenter = Segmenter.load(run)
    parity = write_model(segmenter, out, format=format)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    classes = len(segmenter.info.classes)
    console.print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {classes} classes")
    console.print("image (batch, height, width, 3) uint8 RGB ->")
    console.print("    mask (batch, height, width) uint8,")
    console.print(f"    scores (batch, {classes}, height, width) float32")
    console.print(
        f"compared with the model: probabilities differ by {parity.scores:.1g} at most, "
        f"classes in {parity.mask:.2%} of pixels"
    )
    return 0
