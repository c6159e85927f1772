"""What several test modules share."""

import os
from pathlib import Path

import hypothesis
import pytest
from small_scenes import scenes

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
