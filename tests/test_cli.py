"""What all commands share: usage, help and exit status."""

from dataclasses import fields

import pytest
from command_line import call, usage_error

from weakseg import cli
from weakseg.errors import InputError
from weakseg.training import Recipe


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "reef"],
        ["train", "reef", "--out", "run", "--magic"],
        ["train", "reef", "--out", "run", "--steps", "many"],
        ["train", "reef", "--out", "run", "--steps", "-1"],
        ["train", "reef", "--out", "run", "--kinds", "clicks"],
        ["train", "reef", "--out", "run", "--regime", "thawed"],
        ["train", "reef", "--out", "run", "--grid", "6"],
        ["train", "reef", "--out", "run", "--lr", "0"],
        ["predict", "run", "--out", "masks"],
        ["predict", "run", "photos", "--out", "masks", "--scales", "big"],
        ["evaluate", "pred", "gt"],
        ["check"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    assert usage_error(*arguments) == 2
    assert "usage" in capsys.readouterr().err


def test_a_missing_flag_is_named_as_it_is_typed(capsys):
    assert usage_error("check", "--json") == 2
    assert "are required: dataset\n" in capsys.readouterr().err
    assert usage_error("init") == 2
    assert "are required: images, --classes\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "usage"),
        (["trian"], 2, "did you mean train?"),
        (["--help"], 0, "weakseg COMMAND --help"),
        (["help"], 0, "weakseg COMMAND --help"),
        (["--version"], 0, "weakseg 0"),
    ],
)
def test_the_overview(arguments, status, words, capsys):
    assert call(*arguments) == status
    printed = capsys.readouterr()
    assert words in (printed.err if status else printed.out)


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_flag_of_every_command_is_explained(command, capsys):
    assert usage_error(*command.split(), "--help") == 0
    printed = capsys.readouterr().out
    assert "<weakseg" not in printed  # the name of an object
    assert "None" not in printed
    assert set(cli.COMMANDS) == set(cli.SUMMARIES)


def test_help_of_train_explains_every_setting(capsys):
    assert usage_error("train", "--help") == 0
    printed = " ".join(capsys.readouterr().out.replace("-\n", "-").split())
    texts = {p.name: p.help for p in cli._parameters(Recipe)}
    assert [*texts] == [f.name for f in fields(Recipe)]
    for name, text in texts.items():
        assert f"--{name.replace('_', '-')}" in printed
        assert len(text) > 5
        assert "".join(text.split()) in printed.replace(" ", "")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("bad [red]thing"), 1, "bad [red]thing"),
        (PermissionError(13, "Permission denied", "reef/x"), 1, "Permission denied: 'reef/x'"),
        (OSError(28, "No space left on device"), 1, "no space left on a disk"),
        (OSError(28, "No space left on device", "x/log"), 1, "No space left on device: 'x/log'"),
        (KeyboardInterrupt(), 130, "the same command goes on"),
    ],
)
def test_what_stops_a_command_gives_a_status_and_no_traceback(
    monkeypatch, capsys, error, status, words
):
    from weakseg.cli import check

    def stop(*args, **more):
        raise error

    monkeypatch.setattr(check, "check_dataset", stop)
    assert call("check", "reef") == status
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
