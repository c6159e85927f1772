"""Runs to a repository of the Hugging Face Hub, and back."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub as hf
import yaml
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from weakseg.errors import InputError
from weakseg.hub.card import RESULTS, model_card
from weakseg.segmenter import MODEL, WEIGHTS, Segmenter

CONFIG, CARD = "config.yaml", "README.md"

FILES = (WEIGHTS, MODEL, RESULTS, CONFIG, CARD)
"""All that goes to the Hub or comes from it."""

_PATHS = ("backbone_weights", "region_maps")


def push(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    keep_card: bool = False,
    message: str = "Upload a weakseg run",
    endpoint: str | None = None,
) -> str:
    """Write a run to a repository on the Hub, which is made if it is not there.

    Out go the weights, `model.json`, `results.json`, `config.yaml` without paths of this machine
    and a model card; no photographs, labels or logs.

    Args:
        run: run folder, its training finished.
        repo: "name/of-the-repository".
        private: make a new repository private.
        keep_card: leave a card that is there as it is.
        message: of the commit.
        endpoint: the Hub; default: `HF_ENDPOINT`, else huggingface.co.

    Returns:
        Address of the repository.

    Raises:
        InputError: no finished run, no token, no network, or the Hub refuses.
    """
    run = Path(run)
    Segmenter.load(run)  # a damaged run does not go out
    with _understandable(repo), tempfile.TemporaryDirectory() as folder:
        api = hf.HfApi(endpoint=endpoint)
        if not hf.get_token():
            raise InputError(
                "no token for the Hugging Face Hub",
                rule="the command `hf auth login`, or a token in the variable HF_TOKEN",
            )
        _gather(run, Path(folder), repo)
        address = str(api.create_repo(repo, private=private or None, exist_ok=True))
        if keep_card and api.file_exists(repo, CARD):
            (Path(folder) / CARD).unlink()
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    return address


def pull(
    repo: str,
    out: str | Path,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
) -> Segmenter:
    """Fetch a run that `push` wrote. Nothing that comes is executed.

    Args:
        repo: "name/of-the-repository".
        out: new run folder; appears when all of it is there and the model could be loaded.
        revision: branch, tag or commit; default: the newest.
        endpoint: as in `push`.

    Raises:
        InputError: no such repository or revision, no network, no model there or a damaged one,
            or something in `out`.
    """
    out = Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError("something is there", file=out, rule="a new or empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with _understandable(repo), tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as folder:
        fetched, kept = Path(folder, "fetched"), Path(folder, "kept")
        hf.HfApi(endpoint=endpoint).snapshot_download(
            repo, revision=revision, local_dir=fetched, allow_patterns=[*FILES]
        )
        kept.mkdir()
        for name in FILES:  # nothing else, whatever the repository holds
            if (fetched / name).is_file():
                shutil.move(fetched / name, kept / name)
        try:
            segmenter = Segmenter.load(kept)
        except InputError as error:
            raise InputError(
                "no usable model in the repository",
                file=repo,
                found=f"{error.what}" + (f", {error.found}" if error.found else ""),
                rule="one that `weakseg push` wrote",
            ) from error
        if out.is_dir():
            out.rmdir()
        kept.rename(out)
    return segmenter


def _gather(run: Path, folder: Path, repo: str) -> None:
    """Copy what goes out to a folder of its own."""
    for name in (WEIGHTS, MODEL, RESULTS):
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    if (run / CONFIG).is_file():
        config = _without_paths(yaml.safe_load((run / CONFIG).read_text()))
        (folder / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / CARD).write_text(model_card(run, repo))


def _without_paths(config: Any) -> dict[str, Any]:
    """Settings whose files and folders are bare names."""
    try:
        dataset, recipe = dict(config["dataset"]), dict(config["recipe"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("not the settings of a run", file=CONFIG, found=config) from error
    if dataset.get("folder"):
        dataset["folder"] = Path(str(dataset["folder"])).name
    for key in _PATHS:
        if recipe.get(key):
            recipe[key] = Path(str(recipe[key])).name
    return {"dataset": dataset, "recipe": recipe}


@contextmanager
def _understandable(repo: str) -> Iterator[None]:
    """What goes wrong on the way to the Hub, in words."""
    try:
        yield
    except InputError:
        raise
    except HFValidationError as error:
        rule = "NAME/REPOSITORY of letters, digits, '-', '_' and '.'"
        raise InputError("not the name of a repository", found=repo, rule=rule) from error
    except RevisionNotFoundError as error:
        rule = "a branch, tag or commit of it"
        raise InputError("no such revision", file=repo, rule=rule) from error
    except RepositoryNotFoundError as error:
        rule = "an existing name, and a token if it is private"
        raise InputError("no such repository on the Hub", found=repo, rule=rule) from error
    except HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except Exception as error:
        if isinstance(error.__cause__, HfHubHTTPError):  # wrapped, where files are fetched
            raise _refused(repo, error.__cause__) from error
        if not _is_about_the_network(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        rule = f"a connection to {hf.constants.ENDPOINT}"
        raise InputError("the Hub cannot be reached", found=reason, rule=rule) from error


def _refused(repo: str, error: HfHubHTTPError) -> InputError:
    status = error.response.status_code if error.response is not None else None
    if status in (401, 403):
        rule = "a token with write access to it (`hf auth login`), for `pull` read access"
        return InputError("the Hub refuses", file=repo, found=f"status {status}", rule=rule)
    reason = error.server_message or str(error).partition("\n")[0]
    return InputError("the Hub reports an error", file=repo, found=f"status {status}: {reason}")


def _is_about_the_network(error: Exception) -> bool:
    """Whether an error comes from the Hub's client or what it stands on, not from this machine.

    Its HTTP library has changed with its versions, and the classes of its errors with that.
    """
    if isinstance(error, ConnectionError | TimeoutError | hf.errors.LocalEntryNotFoundError):
        return True
    transport = HfHubHTTPError.__mro__[1].__module__.partition(".")[0]
    return type(error).__module__.partition(".")[0] in (transport, "httpcore")
