"""Sharing runs, with a Hub of our own."""

import json
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from command_line import call
from hub_stand_in import TOKEN, serving
from huggingface_hub import ModelCard
from test_segmenter import INFO, SMALL, photograph

from weakseg.dataset_info import DatasetInfo
from weakseg.errors import InputError
from weakseg.hub import model_card, pull, push
from weakseg.hub.transfer import FILES
from weakseg.segmenter import Segmenter, build_segmenter

REPO = "ann/reef"
TINY = replace(SMALL, backbone="test_resnet")
RESULTS = {
    "miou": {"points+tags": {"weakseg": 0.5409, "cross_entropy": 0.4771}},
    "iou": {"points+tags": {"weakseg": {"water": 0.9, "coral": 0.25, "sand": None}}},
    "protocol": {"train_images": 1663, "measured_images": 321, "measured_on": 'the part "val"'},
}
CONFIG = {
    "dataset": {"folder": "/home/ann/secret/reef", "content": "abc"},
    "recipe": {"kinds": ["points"], "backbone_weights": "/home/ann/w.pt", "region_maps": None},
}


def write_run(folder, info=INFO):
    torch.manual_seed(0)
    counts = {"points": {"images": 1663, "labels": 4012}, "tags": {"images": 9, "labels": 12}}
    meta = {"kinds": ["points", "tags"], "labels": counts}
    build_segmenter(TINY, info, pretrained=False).save(folder, meta)
    (folder / "results.json").write_text(json.dumps(RESULTS))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "log.jsonl").write_text("{}")
    (folder / "stages").mkdir()
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "reef")


def go_to(url, monkeypatch):
    """What HF_ENDPOINT does to a process that starts with it."""
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    """The only Hub that there is; a token for it."""
    with serving() as hub:
        go_to(hub.url, monkeypatch)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def test_there_and_back(run, hub, tmp_path):
    assert push(run, REPO) == f"{hub.url}/{REPO}"
    pulled = pull(REPO, tmp_path / "a/run")
    assert {path.name for path in (tmp_path / "a/run").iterdir()} == {*FILES}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["run"]
    ours, theirs = (m.predict(photograph()) for m in (Segmenter.load(run), pulled))
    np.testing.assert_array_equal(ours.mask, theirs.mask)
    assert json.loads((tmp_path / "a/run/results.json").read_text()) == RESULTS


def test_only_what_is_needed_goes_out(run, hub):
    push(run, REPO)
    files = hub.repositories[REPO][1]
    assert {*files} == {*FILES, ".gitattributes"}
    assert not any(b"/home/ann" in data for data in files.values())
    config = yaml.safe_load(files["config.yaml"])
    assert config["dataset"] == {"folder": "reef", "content": "abc"}
    assert config["recipe"]["backbone_weights"] == "w.pt"


def test_pushing_again_replaces(run, hub, tmp_path):
    push(run, REPO)
    other = write_run(tmp_path / "other", DatasetInfo("lake", ("a", "b", "c")))
    push(other, REPO)
    assert pull(REPO, tmp_path / "out").info.name == "lake"


@pytest.mark.parametrize("keep", [False, True])
def test_a_card_that_was_edited(run, hub, keep):
    push(run, REPO)
    hub.commit(REPO, {"README.md": b"mine"})
    push(run, REPO, keep_card=keep)
    assert (hub.repositories[REPO][1]["README.md"] == b"mine") is keep


def test_private_repositories(run, hub, tmp_path, monkeypatch):
    push(run, REPO, private=True)
    assert hub.private == {REPO}
    assert pull(REPO, tmp_path / "mine").info == INFO
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="no such repository on the Hub: found ann/reef"):
        pull(REPO, tmp_path / "theirs")


def test_an_older_revision(run, hub, tmp_path):
    push(run, REPO)
    first = hub.repositories[REPO][0]
    assert pull(REPO, tmp_path / "out", revision=first).info == INFO


def test_what_a_repository_holds_besides_stays_there(run, hub, tmp_path):
    push(run, REPO)
    hub.commit(REPO, {"evil.py": b"", "sub/weights.safetensors": b"", "pytorch_model.bin": b""})
    pull(REPO, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {*FILES}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights.safetensors": b"\xff" * 900}, "found damaged model"),
        ({"model.json": b"{"}, "found damaged model"),
        ({"model.json": None}, "found no trained model"),
    ],
)
def test_a_repository_without_a_usable_model(run, hub, tmp_path, changes, words):
    push(run, REPO)
    for name, data in changes.items():
        if data is None:
            del hub.repositories[REPO][1][name]
        else:
            hub.commit(REPO, {name: data})
    with pytest.raises(InputError, match=f"ann/reef: no usable model in the repository: {words}"):
        pull(REPO, tmp_path / "run")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no token", "no token for the Hugging Face Hub: expected the command `hf auth login`"),
        ("wrong token", "ann/reef: the Hub refuses: found status 401; expected a token with write"),
        ("forbidden", "ann/reef: the Hub refuses: found status 403"),
        ("broken Hub", "ann/reef: the Hub reports an error: found status 418"),
        ("no network", "the Hub cannot be reached: "),
        ("no such run", "no trained model"),
        ("bad name", "not the name of a repository: found a b/c d"),
    ],
)
def test_what_stops_a_push(run, hub, tmp_path, monkeypatch, capsys, case, words):
    repo = "a b/c d" if case == "bad name" else REPO
    folder = tmp_path if case == "no such run" else run
    if case == "no token":
        monkeypatch.delenv("HF_TOKEN")
    elif case == "wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_other")
    elif case == "no network":
        go_to("http://127.0.0.1:9", monkeypatch)
    hub.refuses = {"forbidden": 403, "broken Hub": 418}.get(case)
    assert call("push", folder, repo) == 1
    message = capsys.readouterr().err
    assert words in " ".join(message.split())
    assert "Traceback" not in message
    assert not hub.repositories


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no such repository", "no such repository on the Hub: found ann/reef"),
        ("no such revision", "ann/reef: no such revision"),
        ("no network", "the Hub cannot be reached: "),
        ("bad name", "not the name of a repository: found ../reef"),
        ("forbidden", "ann/reef: the Hub refuses: found status 403"),
        ("something there", "run: something is there"),
    ],
)
def test_what_stops_a_pull(run, hub, tmp_path, monkeypatch, capsys, case, words):
    if case != "no such repository":
        push(run, REPO)
    if case == "no network":
        go_to("http://127.0.0.1:9", monkeypatch)
    elif case == "forbidden":
        hub.refuses = 403
    elif case == "something there":
        (tmp_path / "run").mkdir()
        (tmp_path / "run/mine").touch()
    repo = "../reef" if case == "bad name" else REPO
    revision = ["--revision", "v9"] if case == "no such revision" else []
    before = sorted(tmp_path.rglob("*"))
    assert call("pull", repo, "--out", tmp_path / "run", *revision) == 1
    message = capsys.readouterr().err
    assert words in " ".join(message.split())
    assert "Traceback" not in message
    assert sorted(tmp_path.rglob("*")) == before


def test_the_commands(run, hub, tmp_path, capsys):
    assert call("push", run, REPO, "--private") == 0
    assert f"{hub.url}/{REPO}" in capsys.readouterr().out
    assert call("pull", REPO, "--out", tmp_path / "run") == 0
    assert "water, coral, sand" in capsys.readouterr().out


# --- the card


def test_the_card_says_what_the_model_is(run):
    card = ModelCard(model_card(run, REPO))
    assert card.data.library_name == "weakseg"
    assert card.data.pipeline_tag == "image-segmentation"
    assert [(r.metric_type, r.metric_value) for r in card.data.eval_results] == [
        ("mean_iou", 0.5409)
    ]
    for words in (
        "3 classes: water, coral, sand. Background: water",
        "test_resnet, seen at 96 pixels",
        "1,663 images",
        "| points | 1,663 | 4,012 |",
        "points+tags, weakseg: mIoU **54.1**",
        "cross entropy: mIoU **47.7**",
        "| coral | 25.0 |",
        "| sand | - |",
        '- measured on: the part "val"',
        "weakseg pull ann/reef --out runs/reef",
    ):
        assert words in card.text


def test_a_card_without_figures(run, tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "results.json").unlink()
    description = json.loads((folder / "model.json").read_text())
    del description["labels"], description["kinds"]
    (folder / "model.json").write_text(json.dumps(description))
    card = ModelCard(model_card(folder, REPO))
    assert "Nothing was measured" in card.text
    assert "not known" in card.text
    assert not card.data.eval_results


def test_names_of_classes_cannot_change_the_card(tmp_path):
    folder = write_run(tmp_path / "run", DatasetInfo("x", ("a", "<b>|c](http://d)", "# e")))
    text = model_card(folder, REPO)
    assert "\\<b\\>\\|c\\](http://d)" in text


@pytest.mark.parametrize("text", ["[]", "{", '{"miou": 5}', '{"miou": {"points": 5}}'])
def test_a_damaged_run_gets_no_card(tmp_path, text):
    folder = write_run(tmp_path / "run")
    (folder / "results.json").write_text(text)
    with pytest.raises(InputError, match="not the files of a run"):
        model_card(folder, REPO)
