"""What the README and the pages in docs/ show works as shown."""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from weakseg import cli
from weakseg.annotation import Annotation

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language=""):
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def spans(page):
    """The pieces of code within running text."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def parser_of(command):
    module, positional = cli.COMMANDS[command]
    function = getattr(importlib.import_module(f"weakseg.cli.{module}"), module)
    return cli._parser(command, function, positional)


def commands():
    """Every `weakseg COMMAND ...` of every page, without comments and brackets."""
    for page in PAGES:
        shown = [line for block in blocks(page) for line in block.splitlines()]
        for code in (*shown, *spans(page)):
            found = re.search(r"(?:^|&& |uv run )weakseg ([a-z].*)", code.partition("  #")[0])
            if found:
                words = shlex.split(found[1])
                optional = [word.strip("[]") if word.startswith("[--") else word for word in words]
                closed = [w.removesuffix("]") if "[" not in w else w for w in optional]
                yield pytest.param(closed, id=f"{page.stem}: {' '.join(closed)}")


@pytest.mark.parametrize("words", [*commands()])
def test_commands_are_understood(words):
    command, arguments = cli.split_command(words)
    assert command in cli.COMMANDS
    if arguments or command == "demo":  # a bare name only mentions the command
        parser_of(command).parse_args(arguments)


def test_pages_show_the_main_commands():
    assert {cli.split_command(param.values[0])[0] for param in commands()} == set(cli.COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_flags_exist(page):
    known = {
        flag
        for command in cli.COMMANDS
        for action in parser_of(command)._actions
        for flag in action.option_strings
    }
    # Pages also show what the benchmarks take, and uv.
    for script in (ROOT / "benchmarks").rglob("*.py"):
        known |= set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', script.read_text()))
    known |= {"--group", "--with"}
    named = {flag for code in spans(page) for flag in re.findall(r"(?<!\S)--[a-z][a-z-]*", code)}
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_the_line_of_annotations_in_the_readme_is_valid():
    (line,) = blocks(ROOT / "README.md", "json")
    data = json.loads(line)
    annotation, problems = Annotation.parse(data)
    assert problems == []
    assert annotation.kinds == {"points", "tags"}


def test_the_python_example_of_the_readme_runs(tmp_path, monkeypatch):
    (code,) = blocks(ROOT / "README.md", "python")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    prediction = names["prediction"]
    assert prediction.mask.shape == prediction.confidence.shape == (96, 128)
    # The coral is found where it was painted, in most images at least.
    hits = [
        names["segmenter"].predict(image).mask[point.xy[1], point.xy[0]] == 1
        for image, labels in zip(names["images"], names["labels"], strict=True)
        for point in labels.points
        if point.label == "coral"
    ]
    assert sum(hits) >= 6
    assert (tmp_path / "runs/quick/weights.safetensors").exists()
