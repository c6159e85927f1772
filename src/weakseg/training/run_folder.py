"""The folder of a run: settings, log, weights, and what lets a killed run go on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import yaml
from torch import nn

from weakseg.errors import InputError
from weakseg.files import append_text, atomic_path, half_written, write_text
from weakseg.training.recipe import Recipe

CONFIG = "config.yaml"

#: Settings that change how a run computes, not what: it may be resumed with others.
FREE = {"device", "devices", "workers"}


class RunFolder:
    """A run on disk.

    Args:
        path: the folder.
        recipe: resolved.
        dataset: what identifies the data: its folder and content hash.
        overwrite: throw away a run with other settings that is there; one with the same goes on.

    Raises:
        InputError: another run, or something else, is there.
    """

    def __init__(
        self, path: Path, recipe: Recipe, dataset: dict[str, str], *, overwrite: bool = False
    ) -> None:
        self.path, self.stages = path, path / "stages"
        config = {"dataset": dataset, "recipe": jsonable(asdict(recipe))}
        self.resumed = False
        if path.is_file():
            raise InputError("the run folder is a file", file=path, rule="a folder")
        if path.is_dir() and any(path.iterdir()):
            self._check(config, overwrite)
        write_text(path / CONFIG, yaml.safe_dump(config, sort_keys=False))

    def log(self, stage: str, step: int, losses: dict[str, float], **more: Any) -> None:
        """Append a record to `log.jsonl`."""
        record = {"time": round(time.time(), 1), "stage": stage, "step": step, "losses": losses}
        append_text(self.path / "log.jsonl", json.dumps(record | more) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The log; where a resumed run repeated a step, the later record counts."""
        path = self.path / "log.jsonl"
        if not path.exists():
            return []
        latest: dict[tuple[str, int], dict[str, Any]] = {}
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
                latest[record["stage"], record["step"]] = record
            except (ValueError, KeyError, TypeError):
                continue  # a killed run leaves half a line
        return list(latest.values())

    def _check(self, config: dict[str, Any], overwrite: bool) -> None:
        path = self.path / CONFIG
        if not path.exists():
            raise InputError(
                "the run folder holds something else", file=self.path, rule="a new or empty folder"
            )
        # Other programs name their settings so too: nothing of theirs is thrown away.
        try:
            changed = _differences(yaml.safe_load(path.read_text()), config)
        except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                "not the settings of a run",
                file=path,
                found=str(error),
                rule="a new or empty folder, or that of a run",
            ) from error
        if changed and overwrite:
            shutil.rmtree(self.path)
            return
        if changed:
            raise InputError(
                "the run folder holds a run with other settings",
                file=self.path,
                found="; ".join(changed),
                rule="the same settings to resume it, another --out, or --overwrite",
            )
        self.resumed = True
        for file in self.stages.rglob("*"):
            if half_written(file):
                file.unlink()


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    changed = []
    for part in ("dataset", "recipe"):
        for key in sorted(old[part].keys() | new[part].keys()):
            before, after = old[part].get(key), new[part].get(key)
            if before != after and (part, key) == ("dataset", "content"):
                changed.append("dataset.yaml or annotations.jsonl have changed")
            elif (part, key) == ("dataset", "files"):
                if before not in (None, after):  # None: a run of an earlier version
                    changed.append("photographs, masks, weights or region maps have changed")
            elif before != after and key not in FREE:
                changed.append(f"{key} {before} there, {after} now")
    return changed


def jsonable(value: Any) -> Any:
    """Tuples as lists and paths as text, all the way down."""
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [jsonable(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def save_stage(file: Path, module: nn.Module) -> None:
    """Keep what a stage trained."""
    with atomic_path(file) as temporary:
        tensors = {name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()}
        safetensors.torch.save_file(tensors, temporary)


def load_stage(file: Path, module: nn.Module) -> None:
    """Take over what `save_stage` kept.

    Raises:
        InputError: the file is damaged, or of another module.
    """
    with damaged_as_input(file):
        module.load_state_dict(safetensors.torch.load_file(file))


@contextmanager
def damaged_as_input(file: Path) -> Iterator[None]:
    """Whatever goes wrong with a file of a stage, say which file it is and what to do."""
    try:
        yield
    except Exception as error:  # readers of damaged files raise many kinds
        raise InputError(
            "damaged file of an earlier run",
            file=file,
            found=str(error).partition("\n")[0] or type(error).__name__,
            rule="the same command once the file is deleted, which computes that stage again",
        ) from error
