"""The flag `--config`: settings of a training run from a YAML file."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from weakseg.errors import InputError


class RecipeFile(ActionConfigFile):
    """A file of settings, or the `config.yaml` of a run, whose settings stand under `recipe`."""

    def __call__(
        self,
        parser: Any,
        cfg: Any,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Put the settings in the place of the defaults."""
        known = {action.dest for action in parser._actions} - {self.dest, "help"}
        settings = read_settings(Path(values), known)
        self.apply_config(parser, cfg, self.dest, yaml.safe_dump(settings))


def read_settings(path: Path, known: Collection[str]) -> dict[str, Any]:
    """The settings in a YAML file.

    Args:
        path: the file.
        known: names that settings may have.

    Raises:
        InputError: it cannot be read, or names an unknown setting.
    """
    rule = "a YAML file of settings, or the config.yaml of a run"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError("no such file", file=path, rule=rule) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read", file=path, found=str(error), rule=rule) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        found = getattr(error, "problem", None) or str(error)
        raise InputError("not valid YAML", file=path, line=line, found=found) from error
    if isinstance(data, Mapping) and "recipe" in data:
        data = data["recipe"]
    if not isinstance(data, Mapping):
        raise InputError("no settings", file=path, found=data, rule=rule)
    settings = {str(key).replace("-", "_"): value for key, value in data.items()}
    for key in settings:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            expected = f"{close[0]}, perhaps" if close else f"one of {', '.join(sorted(known))}"
            raise InputError("unknown setting", file=path, found=key, rule=expected)
    return settings
