"""The command `weakseg`: one function a command, its flags and help taken from its docstring."""

from __future__ import annotations

import difflib
import errno
import importlib
import importlib.metadata
import inspect
import keyword
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ActionYesNo, ArgumentParser, Namespace
from rich.console import Console

from weakseg.cli.recipe_file import RecipeFile
from weakseg.errors import InputError, WeaksegError

#: Command, one word or two: (module and function of `weakseg.cli`, its positional arguments). A
#: module is imported only when its command runs: `weakseg check` should not wait for torch.
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "init": ("init", ("images",)),
    "check": ("check", ("dataset",)),
    "import": ("import_", ("format", "source")),
    "export": ("export", ("format", "dataset")),
    "export model": ("export_model", ("run",)),
    "simulate": ("simulate", ("dataset",)),
    "train": ("train", ("dataset",)),
    "predict": ("predict", ("run", "images")),
    "evaluate": ("evaluate", ("pred", "gt")),
    "regions": ("regions", ("images",)),
    "index": ("index", ("run", "images")),
    "retrieve": ("retrieve", ("index",)),
    "suggest": ("suggest", ("dataset", "run")),
    "push": ("push", ("run", "repo")),
    "pull": ("pull", ("repo",)),
    "demo": ("demo", ()),
}

SUMMARIES = {
    "init": "start a data set from a folder of photographs",
    "check": "report what a data set holds and every problem in it",
    "import": "make a data set from the files of another tool",
    "export": "write labels or predicted masks for another tool",
    "export model": "write a trained model as ONNX or TorchScript",
    "simulate": "simulate weak labels from masks",
    "train": "train a segmenter from tags, boxes, points, scribbles or masks",
    "predict": "classify every pixel of photographs",
    "evaluate": "mean IoU of predicted masks against true ones",
    "regions": "cut photographs into low-level regions",
    "index": "index the segments of photographs, to search in",
    "retrieve": "find segments like one of a photograph, in scenes like it",
    "suggest": "find label errors, what to label next, and near-duplicates",
    "push": "share a trained model on the Hugging Face Hub",
    "pull": "fetch a trained model from the Hugging Face Hub",
    "demo": "train on a small built-in data set and show what comes out",
}


@dataclass(frozen=True)
class _Parameter:
    name: str
    hint: Any
    default: Any
    help: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 done, 1 the input is bad; wrong usage exits with 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    command, rest = split_command(arguments)
    if command not in COMMANDS:
        return _overview(arguments)
    module, positional = COMMANDS[command]
    function = getattr(importlib.import_module(f"weakseg.cli.{module}"), module)
    parser = _parser(command, function, positional)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        parsed = parser.parse_args(_config_first(rest))
        parsed.pop("config", None)
        return int(function(**_values(parser, parsed, function)))
    except BrokenPipeError:  # `weakseg ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (WeaksegError, OSError) as error:
        console.print(_words_of(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here", style="yellow")
        return 130


def _words_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:
        return "no space left on a disk that is written to (that of --out or of WEAKSEG_CACHE)"
    return str(error)


def split_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The command that arguments begin with ("" if there are none), and what follows it."""
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    return " ".join(arguments[:words]), [*arguments[words:]]


def _config_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--config FILE` in front: what comes later wins, and flags should."""
    first: list[str] = []
    rest: list[str] = []
    for i, argument in enumerate(arguments):
        follows = i > 0 and arguments[i - 1] == "--config"
        is_config = argument == "--config" or argument.startswith("--config=")
        (first if follows or is_config else rest).append(argument)
    return first + rest


def _parser(
    command: str, function: Callable[..., int], positional: Sequence[str]
) -> ArgumentParser:
    """The flags of a command: the parameters of its function, and those of its recipe."""
    description = docstring_parser.parse(inspect.getdoc(function) or "").description
    parser = _Parser(prog=f"weakseg {command}", description=description)
    names = {parameter.name for parameter in _parameters(function)}
    parser.flags = frozenset(names - {*positional})
    recipe = get_type_hints(function).get("recipe")
    for parameter in _parameters(function):
        if parameter.name in positional:
            parser.add_argument(parameter.name, type=parameter.hint, help=parameter.help)
        elif parameter.name != "recipe":
            _add_flag(parser, parameter)
    if recipe is not None:
        parser.add_argument(
            "--config",
            action=RecipeFile,
            help="YAML file of settings, or the config.yaml of a run; flags go before it.",
        )
        for parameter in _parameters(recipe):
            _add_flag(parser, parameter)
    return parser


def _parameters(thing: Callable[..., Any]) -> Iterator[_Parameter]:
    """Parameters of a function or dataclass with types, defaults and help texts."""
    text = docstring_parser.parse(inspect.getdoc(thing) or "")
    helps = {p.arg_name: " ".join((p.description or "").split()) for p in text.params}
    hints = get_type_hints(thing)
    for name, parameter in inspect.signature(thing).parameters.items():
        yield _Parameter(name, hints[name], parameter.default, helps[name])


def _add_flag(parser: ArgumentParser, parameter: _Parameter) -> None:
    name = "--" + parameter.name.rstrip("_").replace("_", "-")
    hint, default, text = parameter.hint, parameter.default, parameter.help
    if hint is bool and default is False:
        parser.add_argument(name, action="store_true", help=text)
    elif hint is bool:
        yes_no = ActionYesNo(no_prefix="no-")
        parser.add_argument(name, action=yes_no, default=default, help=text)
    elif get_origin(hint) is tuple and default is not inspect.Parameter.empty:
        parser.add_argument(name, type=_Listed(get_args(hint)[0]), default=default, help=text)
    elif get_origin(hint) is tuple:
        parser.add_argument(name, type=_Listed(get_args(hint)[0]), required=True, help=text)
    elif default is inspect.Parameter.empty:
        parser.add_argument(name, type=hint, required=True, help=text)
    else:
        parser.add_argument(name, type=hint, default=default, help=text)


class _Parser(ArgumentParser):
    """Names a missing flag as it is typed: --out, not out."""

    flags: frozenset[str] = frozenset()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        what, colon, names = message.partition(" are required: ")
        typed = [f"--{name}" if name in self.flags else name for name in names.split(", ")]
        super().error(what + colon + ", ".join(typed), ex)


class _Listed:
    """Argument type: values from "a,b" or, in YAML, from a list."""

    def __init__(self, of: Callable[[str], Any]) -> None:
        self.of = of
        self.__name__ = f"{getattr(of, '__name__', of)},..."

    def __repr__(self) -> str:
        return self.__name__  # help texts show it

    def __call__(self, value: Any) -> tuple[Any, ...]:
        parts = value.strip("[]()").split(",") if isinstance(value, str) else value
        return tuple(self.of(str(part).strip()) for part in parts if str(part).strip())


def _values(parser: ArgumentParser, parsed: Namespace, function: Callable[..., int]) -> Any:
    """Arguments for a command's function."""
    given = vars(parser.instantiate(parsed))
    # A flag may be a word that no parameter can be called: --class is class_.
    values = {name + "_" * keyword.iskeyword(name): value for name, value in given.items()}
    recipe = get_type_hints(function).get("recipe")
    if recipe is None:
        return values
    settings = {f.name: values.pop(f.name) for f in fields(recipe)}
    try:
        return values | {"recipe": recipe(**settings)}
    except InputError as error:
        parser.error(str(error))


def _overview(arguments: Sequence[str]) -> int:
    """Print the list of commands; an unknown one is wrong usage."""
    asked_for_help = bool(arguments) and arguments[0] in ("-h", "--help")
    if arguments and arguments[0] == "--version":
        print(f"weakseg {importlib.metadata.version('weakseg')}")
        return 0
    lines = ["usage: weakseg COMMAND ...", "", "Segmentation from weak labels.", ""]
    lines += [f"  {name:<12} {summary}" for name, summary in SUMMARIES.items()]
    lines += ["", "weakseg COMMAND --help explains a command."]
    stream = sys.stdout if asked_for_help else sys.stderr
    if arguments and not asked_for_help:
        close = difflib.get_close_matches(arguments[0], COMMANDS, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        lines.append(f"weakseg: unknown command {arguments[0]!r}{hint}")
    print("\n".join(lines), file=stream)
    return 0 if asked_for_help else 2
