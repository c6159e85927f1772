"""A recipe out of flags, a file of settings, or Python."""

import json
from dataclasses import asdict, replace

import pytest
import torch
import yaml
from command_line import call, usage_error

from weakseg.errors import InputError
from weakseg.relations import RELATIONS, Relation, RelationSettings
from weakseg.training import Recipe, recipe
from weakseg.training.recipe import relations_at


class Captured(Exception):
    """Carries what the command would train with."""


def recipe_of(monkeypatch, *arguments):
    """The recipe that `weakseg train` makes of its arguments."""
    from weakseg.cli import train
    from weakseg.dataset import Dataset

    def capture(dataset, recipe, **options):
        raise Captured(recipe)

    monkeypatch.setattr(train, "fit", capture)
    monkeypatch.setattr(Dataset, "open", lambda folder: None)
    with pytest.raises(Captured) as caught:
        call("train", "reef", "--out", "run", *arguments)
    return caught.value.args[0]


def test_without_flags_a_recipe_has_its_defaults(monkeypatch):
    assert recipe_of(monkeypatch) == Recipe()


def test_flags_of_every_type(monkeypatch):
    recipe = recipe_of(
        monkeypatch,
        *("--kinds", "tags,points", "--mix", "--no-crf", "--grid", "[3,4]", "--lr", "1e-2"),
        *("--regions", "none", "--relations.affinity.weight", "0.7", "--seed", "5"),
    )
    assert recipe.kinds == ("tags", "points")
    assert recipe.mix
    assert not recipe.crf
    assert recipe.grid == (3, 4)
    assert recipe.lr == 0.01
    assert recipe.regions == "none"
    assert recipe.relations.affinity.weight == 0.7
    assert recipe.seed == 5


def test_the_settings_of_a_run_can_be_used_again(trained, monkeypatch):
    used = recipe_of(monkeypatch, "--config", trained / "config.yaml")
    stored = yaml.safe_load((trained / "config.yaml").read_text())["recipe"]
    assert json.loads(json.dumps(asdict(used), default=str)) == stored
    assert used.kinds == ("points",)
    assert used.steps == 10


def test_resuming_by_the_settings_of_the_run_itself(reef, trained):
    log = (trained / "log.jsonl").read_text()
    assert call("train", reef, "--config", trained / "config.yaml", "--out", trained) == 0
    assert (trained / "log.jsonl").read_text() == log


@pytest.mark.parametrize("order", ["before", "after", "joined"])
def test_flags_go_before_the_file_wherever_it_stands(tmp_path, monkeypatch, order):
    file = tmp_path / "recipe.yaml"
    file.write_text("steps: 7\nlong-side: 96\ngrid: [2, 3]\nkinds: tags\ncrf: false\n")
    config = [f"--config={file}"] if order == "joined" else ["--config", file]
    flags = ["--steps", "9"]
    recipe = recipe_of(
        monkeypatch, *([*config, *flags] if order == "before" else [*flags, *config])
    )
    expected = Recipe(steps=9, long_side=96, grid=(2, 3), kinds=("tags",), crf=False)
    assert recipe == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "recipe.yaml: no such file"),
        ("steps: [1, 2", "recipe.yaml:1: not valid YAML"),
        ("just words", "recipe.yaml: no settings"),
        ("", "recipe.yaml: no settings"),
        ("recipe: 5", "recipe.yaml: no settings"),
        ("stepz: 5", "recipe.yaml: unknown setting: found stepz; expected steps, perhaps"),
        ("recipe: {stepz: 5}", "unknown setting: found stepz"),
        (b"\xff\xfe\x00", "recipe.yaml: cannot be read"),
    ],
)
def test_a_file_of_settings_that_is_wrong(tmp_path, capsys, text, words):
    file = tmp_path / "recipe.yaml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert call("train", "reef", "--out", tmp_path / "run", "--config", file) == 1
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message


def test_a_value_of_the_wrong_type_in_a_file(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("steps: many\n")
    status = usage_error("train", "reef", "--out", "run", "--config", tmp_path / "recipe.yaml")
    assert status == 2
    assert "steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regime": "thawed"}, "--regime: found thawed; expected one of auto, frozen, fine-tune"),
        ({"regions": "voronoi"}, "--regions"),
        ({"scores": "oracle"}, "--scores"),
        ({"precision": "fp8"}, "--precision"),
        ({"weight_decay": -1}, "--weight-decay"),
        ({"walk": -1}, "--walk"),
        ({"cross_entropy": float("nan")}, "--cross-entropy"),
        ({"grid": (1, 2, 3)}, "--grid"),
        ({"seed": -1}, "--seed"),
        ({"relations": relations_at(-1)}, "--relations.image_similarity.weight: found -1"),
        ({"relations": relations_at(float("nan"))}, "--relations.image_similarity.weight"),
        (
            {"relations": RelationSettings(affinity=Relation(1, 0))},
            "--relations.affinity.concentration: found 0; expected more than 0",
        ),
        ({"relations": RelationSettings(affinity_neighbours=0)}, "--relations.affinity_neighb"),
        ({"relations": RelationSettings(affinity_cosine=1.1)}, "--relations.affinity_cosine"),
    ],
)
def test_a_recipe_made_in_python_is_checked_as_well(settings, message):
    with pytest.raises(InputError, match=message):
        Recipe(**settings)


def test_more_devices_than_there_are_show_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(recipe, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Recipe(devices=2).resolved(("points",)).devices == 2
    with pytest.raises(InputError, match="--devices: found 3; expected 2 or fewer, here"):
        Recipe(devices=3).resolved(("points",))


def test_a_recipe_takes_what_yaml_gives():
    recipe = Recipe(kinds="points", grid=[3, 4])
    assert recipe == replace(Recipe(), kinds=("points",), grid=(3, 4))


@pytest.mark.parametrize(
    ("kinds", "cross_entropy", "complete", "weights", "rounds"),
    [
        (("points",), 1.0, False, (1.0, 0.0, 1.0, 0.0), 2),
        (("boxes",), 1.0, False, (1.0, 3.0, 1.0, 0.0), 2),
        (("tags", "boxes"), 1.0, False, (1.0, 3.0, 1.0, 0.0), 2),
        (("tags",), 1.0, False, (1.0, 3.0, 1.0, 0.0), 2),
        (("tags", "points"), 1.0, False, (1.0, 0.0, 1.0, 0.0), 2),
        (("points",), 0.0, False, (1.0, 3.0, 1.0, 0.0), 2),
        (("masks",), 1.0, False, (1.0, 0.0, 1.0, 0.0), 2),
        (("masks",), 1.0, True, (0.0, 0.0, 0.0, 0.0), 0),
        (("masks",), 0.0, True, (0.0, 3.0, 0.0, 0.0), 0),
    ],
)
def test_relations_and_rounds_follow_the_labels(kinds, cross_entropy, complete, weights, rounds):
    recipe = Recipe(cross_entropy=cross_entropy).resolved(kinds, complete=complete)
    found = [getattr(recipe.settings, name).weight for name in RELATIONS]
    assert found == pytest.approx(weights)
    assert recipe.rounds == rounds
    assert recipe.walk == (64 if any(weights) else 0)


def test_relations_that_were_asked_for_stay_with_full_masks():
    mine = relations_at(0.2)
    assert Recipe(relations=mine).resolved(("masks",), complete=True).relations == mine


def test_a_walk_that_was_asked_for_stays():
    assert Recipe(walk=0).resolved(("points",)).walk == 0
    assert Recipe(walk=9).resolved(("masks",), complete=True).walk == 9
    assert Recipe(walk=9, long_side=1024).resolved(("points",)).walk == 9


def test_large_grids_have_no_walk():
    assert Recipe(long_side=512).resolved(("points",)).walk == 64
    assert Recipe(long_side=513).resolved(("points",)).walk == 0


def test_an_embedding_without_any_loss_is_refused():
    with pytest.raises(InputError, match="--cross-entropy"):
        Recipe(cross_entropy=0, relations=relations_at(0.0)).resolved(("points",))
