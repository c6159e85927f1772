"""What several test modules share."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import small_scenes
from command_line import call
from reef import QUICK, write_dataset
from small_scenes import scenes

from weakseg import fit

# Time limits on single examples fail on a busy machine; the same examples every time.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Tests neither use nor fill the user's cache."""
    os.environ["WEAKSEG_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def voc_subset():
    """The research photographs, where they are."""
    place = Path(os.environ.get("WEAKSEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (place / "voc-subset").is_dir():
        pytest.skip("needs the voc-subset photographs (set WEAKSEG_DATA)")
    return place / "voc-subset"


@pytest.fixture
def small_dataset():
    """See `scenes`."""
    return scenes()


@pytest.fixture(scope="session")
def reef(tmp_path_factory):
    """See the module of this name; not to be changed."""
    folder = tmp_path_factory.mktemp("data") / "reef"
    write_dataset(folder)
    return folder


@pytest.fixture
def reef_copy(reef, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(reef, tmp_path / "reef"))


@pytest.fixture(scope="session")
def trained(reef, tmp_path_factory):
    """A run folder that the command wrote; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert call("train", reef, "--out", out, *QUICK) == 0
    return out


@pytest.fixture
def photos(reef, tmp_path):
    """A folder of photographs with a subfolder."""
    (tmp_path / "photos/site").mkdir(parents=True)
    shutil.copy(reef / "images/rgb.jpg", tmp_path / "photos/a.jpg")
    shutil.copy(reef / "images/turned.jpg", tmp_path / "photos/site/b.jpg")
    return tmp_path / "photos"


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished run on points, with the baseline."""
    out = tmp_path_factory.mktemp("run") / "run"
    return fit(scenes(), replace(small_scenes.QUICK, baselines=True), out=out)
