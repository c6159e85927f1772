"""Frozen features: what is stored is what the backbone computes, whatever happens meanwhile."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from weakseg.annotation import Annotation
from weakseg.dataset import Dataset, Entry
from weakseg.errors import InputError
from weakseg.features import (
    FeatureCache,
    cache,
    compute_features,
    extract,
    extract_features,
    feature_size,
    resized_size,
)
from weakseg.models import Backbone, load_backbone

SIZES = [(40, 60), (60, 40), (40, 60), (33, 47), (40, 60)]  # H, W


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("mobilenetv3_small_050", pretrained=False)


@pytest.fixture
def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (h, w, 3), np.uint8) for h, w in SIZES]


@pytest.fixture
def entries(images, tmp_path) -> list[Entry]:
    (tmp_path / "images").mkdir()
    found = []
    for i, image in enumerate(images):
        path = tmp_path / "images" / f"{i}.png"
        Image.fromarray(image).save(path)
        found.append(Entry(str(i), path, image.shape[1], image.shape[0]))
    return found


class Counted:
    """Counts the images that reach the network."""

    def __init__(self, backbone: Backbone) -> None:
        self.images = 0
        self.handle = backbone.net.register_forward_pre_hook(self.see)

    def see(self, module, inputs) -> None:
        self.images += len(inputs[0])

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.remove()


@pytest.mark.parametrize(
    ("height", "width", "long_side", "stride", "resized", "grid"),
    [
        (375, 500, 416, 8, (312, 416), (39, 52)),
        (500, 375, 416, 16, (416, 312), (26, 20)),
        (333, 500, 416, 8, (277, 416), (35, 52)),
        (100, 100, 416, 8, (416, 416), (52, 52)),
        (10, 4000, 416, 8, (1, 416), (1, 52)),
        (33, 47, None, 8, (33, 47), (5, 6)),
    ],
)
def test_sizes(height, width, long_side, stride, resized, grid):
    assert resized_size(height, width, long_side) == resized
    assert feature_size(height, width, long_side, stride) == grid


class TestExtract:
    def test_every_image_has_the_features_of_that_image(self, backbone, entries, images, tmp_path):
        options = {"long_side": 48, "stride": 8, "precision": "fp32"}
        cache = extract_features(entries, backbone, cache_dir=tmp_path / "cache", **options)
        assert len(cache) == len(images)
        for i, image in enumerate(images):
            expected = compute_features(backbone, image, **options)
            assert tuple(expected.shape[1:]) == feature_size(*image.shape[:2], 48, 8)
            assert cache.size(i) == tuple(expected.shape[1:])
            assert cache[i].shape == expected.shape
            assert cache[i].dtype == np.float16
            np.testing.assert_allclose(cache[i], expected.numpy(), rtol=2e-3, atol=1e-4)

    def test_a_second_run_computes_nothing(self, backbone, entries, tmp_path):
        first = extract_features(entries, backbone, cache_dir=tmp_path / "cache", long_side=48)
        with Counted(backbone) as counted:
            second = extract_features(entries, backbone, cache_dir=tmp_path / "cache", long_side=48)
        assert counted.images == 0
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_progress_counts_all_images_once(self, backbone, entries, tmp_path):
        calls: list[tuple[int, int]] = []
        options = {"cache_dir": tmp_path / "cache", "long_side": 48}
        for _ in range(2):
            calls.clear()
            extract_features(entries, backbone, progress=lambda *c: calls.append(c), **options)
            assert calls[-1] == (5, 5)
            assert [done for done, _ in calls] == sorted({done for done, _ in calls})

    def test_content_counts_not_names(self, backbone, entries, tmp_path):
        extract_features(entries, backbone, cache_dir=tmp_path / "cache", long_side=48)
        shutil.copytree(tmp_path / "images", tmp_path / "moved")
        moved = [
            Entry(e.name, tmp_path / "moved" / e.image.name, e.width, e.height) for e in entries
        ]
        with Counted(backbone) as counted:
            extract_features(moved, backbone, cache_dir=tmp_path / "cache", long_side=48)
            assert counted.images == 0
            Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(moved[0].image)
            again = extract_features(moved, backbone, cache_dir=tmp_path / "cache", long_side=48)
            assert counted.images == 1
        expected = compute_features(backbone, np.zeros((40, 60, 3), np.uint8), long_side=48)
        np.testing.assert_allclose(again[0], expected.numpy(), rtol=2e-2, atol=1e-2)

    def test_equal_images_are_computed_once(self, backbone, entries, tmp_path):
        shutil.copy(entries[0].image, tmp_path / "images" / "copy.png")
        copy = Entry("copy", tmp_path / "images" / "copy.png", 60, 40)
        with Counted(backbone) as counted:
            both = extract_features(
                [entries[0], copy], backbone, cache_dir=tmp_path / "cache", long_side=48
            )
        assert counted.images == 1
        np.testing.assert_array_equal(both[0], both[1])

    @pytest.mark.parametrize("change", ["long_side", "stride", "precision", "weights"])
    def test_other_settings_are_other_features(self, entries, tmp_path, change):
        torch.manual_seed(0)
        backbone = load_backbone("mobilenetv3_small_050", pretrained=False)
        options = {"long_side": 48, "stride": 8, "precision": "fp32"}
        first = extract_features(entries[:1], backbone, cache_dir=tmp_path / "c", **options)
        if change == "weights":
            with torch.no_grad():
                backbone.net.conv_stem.weight.mul_(0.5)
        else:
            options[change] = {"long_side": 56, "stride": 16, "precision": "bf16"}[change]
        second = extract_features(entries[:1], backbone, cache_dir=tmp_path / "c", **options)
        assert second.folder != first.folder
        assert second[0].shape != first[0].shape or not np.array_equal(second[0], first[0])

    def test_images_in_memory(self, backbone, images, tmp_path):
        dataset = Dataset.from_arrays(images, [Annotation()] * len(images), ["a", "b"])
        with Counted(backbone) as counted:
            for _ in range(2):
                cache = extract_features(dataset, backbone, cache_dir=tmp_path, long_side=48)
        assert counted.images == len(images)
        assert len(cache) == len(images)

    def test_bf16_is_near_fp32(self, backbone, images):
        exact = compute_features(backbone, images[0], long_side=64, precision="fp32")
        rounded = compute_features(backbone, images[0], long_side=64, precision="bf16")
        assert not torch.equal(exact, rounded)
        assert float((exact - rounded).norm() / exact.norm()) < 0.03

    def test_a_corrupt_image_is_named_and_the_rest_is_kept(self, backbone, entries, tmp_path):
        whole = entries[3].image.read_bytes()
        entries[3].image.write_bytes(whole[:200])
        with pytest.raises(InputError, match=r"3\.png"):
            extract_features(
                entries, backbone, cache_dir=tmp_path / "cache", long_side=48, batch_size=1
            )
        entries[3].image.write_bytes(whole)
        with Counted(backbone) as counted:
            extract_features(entries, backbone, cache_dir=tmp_path / "cache", long_side=48)
        assert counted.images == 2

    def test_a_missing_image_is_named(self, backbone, entries, tmp_path):
        entries[1].image.unlink()
        with pytest.raises(InputError, match=r"1\.png: no such image"):
            extract_features(entries, backbone, cache_dir=tmp_path / "cache", long_side=48)

    def test_no_room_is_said_before_the_work(self, backbone, entries, tmp_path, monkeypatch):
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(extract.shutil, "disk_usage", lambda path: usage)
        words = "no room .*found 0 MB free; expected 1 MB"
        with Counted(backbone) as counted, pytest.raises(InputError, match=words):
            extract_features(entries, backbone, cache_dir=tmp_path / "cache", long_side=48)
        assert counted.images == 0

    def test_unknown_precision(self, backbone, images):
        with pytest.raises(InputError, match="found fp12; expected auto, fp32, bf16"):
            compute_features(backbone, images[0], precision="fp12")


def filled(folder: Path, sizes: list[tuple[int, int]], channels: int = 3) -> FeatureCache:
    cache = FeatureCache(folder, channels)
    torch.manual_seed(0)
    with cache.writing():
        for i, (h, w) in enumerate(sizes):
            cache.append(f"k{i}", torch.randn(channels, h, w))
    return cache


class TestCache:
    def test_views_do_not_copy(self, tmp_path):
        cache = filled(tmp_path, [(4, 5), (2, 3)])
        assert isinstance(cache[1].base, np.ndarray)
        assert np.shares_memory(cache[1], cache.crop(1, 0, 1, 2, 2))
        assert not cache[1].flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            cache[1][0, 0, 0] = 1

    def test_reopened_it_is_the_same(self, tmp_path):
        old = filled(tmp_path, [(4, 5), (2, 3), (7, 1)])
        new = FeatureCache(tmp_path, 3)
        assert new.keys == old.keys
        for a, b in zip(old, new, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(new.select(["k2", "k0"])[1], old[0])
        np.testing.assert_array_equal(new[1:][0], old[1])

    def test_single_positions_of_several_images(self, tmp_path):
        cache = filled(tmp_path, [(4, 5), (2, 3), (7, 1)]).select(["k2", "k0", "k1"])
        places = [(0, 6, 0), (2, 1, 2), (1, 0, 0), (1, 3, 4), (1, 3, 4)]
        first = cache.first_rows()
        rows = np.array([first[i] + y * cache.size(i)[1] + x for i, y, x in places])
        picked = FeatureCache(tmp_path, 3).rows(rows)
        np.testing.assert_array_equal(picked, [cache[i][:, y, x] for i, y, x in places])
        picked += 1  # a copy: the file itself is read-only
        assert cache.rows(np.zeros(0, np.int64)).shape == (0, 3)

    @settings(max_examples=40, deadline=None)
    @given(st.integers(-5, 9), st.integers(-5, 9), st.integers(1, 8), st.integers(1, 8))
    def test_crops_are_what_padding_and_slicing_give(self, tmp_path_factory, top, left, h, w):
        folder = tmp_path_factory.getbasetemp() / "crops"
        cache = FeatureCache(folder, 3) if folder.exists() else filled(folder, [(6, 7)])
        padded = np.pad(cache[0], ((0, 0), (20, 20), (20, 20)))
        expected = padded[:, 20 + top : 20 + top + h, 20 + left : 20 + left + w]
        batch = cache.crops([(0, top, left), (0, 0, 0)], h, w)
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(batch[0].numpy(), expected)

    @pytest.mark.parametrize("part", [(-1, 0, 2, 2), (0, 0, 7, 2), (5, 6, 1, 2)])
    def test_a_single_crop_lies_within(self, tmp_path, part):
        with pytest.raises(IndexError, match="grid of 6 x 7"):
            filled(tmp_path, [(6, 7)]).crop(0, *part)

    def test_what_a_killed_run_leaves_is_overwritten(self, tmp_path):
        """Cut the index and the values anywhere: whole images stay, the rest is redone."""
        cache = filled(tmp_path, [(4, 5), (2, 3), (7, 1)])
        expected = [np.array(features) for features in cache]
        index, data = cache.index_path.read_bytes(), cache.data_path.read_bytes()
        for cut_index in range(0, len(index) + 1, 7):
            for cut_data in range(0, len(data) + 1, 30):
                cache.index_path.write_bytes(index[:cut_index])
                cache.data_path.write_bytes(data[:cut_data])
                again = FeatureCache(tmp_path, 3)
                for row, features in enumerate(again):
                    np.testing.assert_array_equal(features, expected[row])
        cache.index_path.write_bytes(index[:-3])
        cache.data_path.write_bytes(data + b"torn tail")
        with FeatureCache(tmp_path, 3).writing() as resumed:
            assert resumed.keys == ["k0", "k1"]
            resumed.append("new", torch.ones(3, 2, 2))
        again = FeatureCache(tmp_path, 3)
        assert again.keys == ["k0", "k1", "new"]
        np.testing.assert_array_equal(again[2], np.ones((3, 2, 2)))
        np.testing.assert_array_equal(again[1], expected[1])

    def test_nothing_is_listed_before_its_values_are_on_disk(self, tmp_path, monkeypatch):
        order: list[str] = []
        fsync = os.fsync
        monkeypatch.setattr(cache.os, "fsync", lambda fd: (order.append("values"), fsync(fd)))
        store = FeatureCache(tmp_path, 3)
        with store.writing():
            store.append("a", torch.ones(3, 2, 2))
            assert store.index_path.read_bytes() == b""
            store.commit()
            assert order == ["values"]
            assert json.loads(store.index_path.read_text())["key"] == "a"

    def test_an_interrupted_run_keeps_what_it_appended(self, tmp_path):
        def killed() -> None:
            with FeatureCache(tmp_path, 3).writing() as store:
                store.append("a", torch.ones(3, 2, 2))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            killed()
        assert FeatureCache(tmp_path, 3).keys == ["a"]

    def test_two_writers_take_turns(self, tmp_path):
        """The second sees what the first wrote, and overwrites none of it."""
        first, second = FeatureCache(tmp_path, 3), FeatureCache(tmp_path, 3)
        with first.writing():
            first.append("a", torch.full((3, 2, 2), 1.0))
        with second.writing():
            assert "a" in second
            second.append("b", torch.full((3, 2, 2), 2.0))
        both = FeatureCache(tmp_path, 3)
        assert both[0].max() == 1
        assert both[1].min() == 2

    def test_values_beyond_float16_are_clamped_and_nan_is_refused(self, tmp_path):
        store = FeatureCache(tmp_path, 1)
        with store.writing():
            store.append("a", torch.tensor([1e6, -1e6, 1.0]).view(1, 1, 3))
            with pytest.raises(InputError, match="not finite"):
                store.append("b", torch.tensor([float("nan")]).view(1, 1, 1))
        assert store[0].flatten().tolist() == [65504, -65504, 1]
        assert len(FeatureCache(tmp_path, 1)) == 1

    def test_a_full_disk_is_said(self, tmp_path):
        class Full:
            def seek(self, position: int) -> None: ...
            def write(self, data: object) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

            def flush(self) -> None: ...
            def close(self) -> None: ...

        def fill() -> None:
            with FeatureCache(tmp_path, 3).writing() as store:
                store._writer = Full()
                store.append("a", torch.ones(3, 2, 2))

        with pytest.raises(InputError, match=r"features\.bin.*No space left"):
            fill()
        assert len(FeatureCache(tmp_path, 3)) == 0

    def test_a_pickle_carries_no_values(self, tmp_path):
        store = filled(tmp_path, [(40, 50)] * 3)
        store[2]
        sent = pickle.dumps(store)
        assert len(sent) < 4000
        np.testing.assert_array_equal(pickle.loads(sent)[2], store[2])
