"""Where weights come from, and that they are the right ones."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from weakseg.errors import InputError
from weakseg.models import OFFLINE_WEIGHTS, load_backbone, offline_weights, read_checkpoint


def test_weights_out_of_reach_say_what_to_do(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("couldn't connect")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        InputError, match=r"out of reach.*--backbone-weights.*tf_efficientnet_lite0"
    ):
        load_backbone("resnet18")


class TestOfflineWeights:
    @pytest.mark.parametrize("name", OFFLINE_WEIGHTS)
    def test_every_tensor_of_timms_model_is_there(self, name):
        state = offline_weights(name)
        expected = timm.create_model(name).state_dict()
        assert state is not None
        assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}
        assert offline_weights(f"{name}.in1k") is not None
        assert offline_weights("resnet18") is None

    @pytest.mark.parametrize("name", OFFLINE_WEIGHTS)
    def test_photographs_are_recognised(self, name):
        """Of 1000 classes, among the first three; swapped tensors would give noise."""
        assert {281, 282, 285} & set(classify(name, skimage.data.chelsea()))  # tabby, tiger, Mau
        assert classify(name, skimage.data.coffee())[0] == 967  # espresso
        assert {657, 744, 812} & set(classify(name, skimage.data.rocket()))  # missile, shuttle
        camera = np.stack([skimage.data.camera()] * 3, -1)
        assert classify(name, camera)[0] == 872  # tripod

    @pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
    def test_they_were_trained_with_mean_and_std_of_one_half(self, name):
        """The first batch norm's stored statistics are those of photographs so normalised."""
        ours = backbone_stem_divergence(name, [0.5] * 3, [0.5] * 3)
        other = backbone_stem_divergence(name, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        assert ours < 0.1
        assert other > 0.5
        backbone = load_backbone(name)
        assert backbone.mean.flatten().tolist() == backbone.std.flatten().tolist() == [0.5] * 3

    def test_the_backbone_has_them(self):
        backbone = load_backbone("tf_efficientnet_lite0")
        stored = offline_weights("tf_efficientnet_lite0")
        assert stored is not None
        assert torch.equal(backbone.net.conv_stem.weight, stored["conv_stem.weight"])
        last = "blocks.6.0.bn3.running_var"
        assert torch.equal(backbone.net.state_dict()[last], stored[last])


def photographs(size: int) -> Tensor:
    images = []
    for name in ("chelsea", "coffee", "rocket", "astronaut"):
        image = Image.fromarray(getattr(skimage.data, name)())
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
        image = image.resize((size, size), Image.Resampling.BICUBIC)
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255)
    return torch.stack(images)


def backbone_stem_divergence(name: str, mean: list[float], std: list[float]) -> float:
    """Median over channels of KL(photographs' statistics || stored statistics)."""
    backbone = load_backbone(name)
    stem, norm = backbone.net.conv_stem, backbone.net.bn1
    images = (photographs(224) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        out = stem(images)
    var, bias = out.var((0, 2, 3)), out.mean((0, 2, 3)) - norm.running_mean
    stored = norm.running_var + norm.eps
    kl = (var + bias**2) / stored - 1 - torch.log((var + norm.eps) / stored)
    return float(kl.median() / 2)


def classify(name: str, image: np.ndarray) -> list[int]:
    model = timm.create_model(name).eval()
    state = offline_weights(name)
    assert state is not None
    model.load_state_dict(state)
    size, crop = model.default_cfg["input_size"][1], model.default_cfg["crop_pct"]
    picture = Image.fromarray(image)
    scale = size / crop / min(picture.size)
    picture = picture.resize(
        (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
    )
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    picture = picture.crop((left, top, left + size, top + size))
    batch = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        scores = model((batch - 0.5) / 0.5)[0]
    top3: list[int] = scores.topk(3).indices.tolist()
    return top3


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(1)
    state: dict[str, Tensor] = timm.create_model("resnet18", num_classes=7).state_dict()
    return state


class TestCheckpoints:
    @pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped", "without classifier"])
    def test_a_file_takes_the_place_of_imagenet(self, tmp_path, state, form):
        path = tmp_path / f"weights.{'safetensors' if form == 'safetensors' else 'pth'}"
        if form == "safetensors":
            save_file(state, path)
        elif form == "wrapped":
            torch.save(
                {"state_dict": {f"module.{k}": v for k, v in state.items()}, "step": 3}, path
            )
        elif form == "without classifier":
            torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, path)
        else:
            torch.save(state, path)
        backbone = load_backbone("resnet18", weights=path)
        for key, value in backbone.net.state_dict().items():
            assert torch.equal(value, state[key]), key

    def test_a_transformer_takes_one_too(self, tmp_path):
        torch.manual_seed(2)
        model = timm.create_model("vit_tiny_patch16_224")
        save_file(model.state_dict(), tmp_path / "vit.safetensors")
        backbone = load_backbone(
            "vit_tiny_patch16_224", weights=tmp_path / "vit.safetensors", taps=[11]
        )
        images = torch.rand(1, 3, 224, 224)
        with torch.no_grad():
            tokens = model.eval().forward_features((images - 0.5) / 0.5)[0, 1:]
            grid = backbone(images)[0][0]
        torch.testing.assert_close(grid.flatten(1).T, tokens, rtol=1e-4, atol=1e-4)

    def test_weights_of_another_network_are_refused(self, tmp_path, state):
        path = tmp_path / "weights.pth"
        torch.save(state, path)
        for name in ("resnet34", "tf_efficientnet_lite0", "convnext_atto", "vit_tiny_patch16_224"):
            with pytest.raises(InputError, match=r"weights\.pth: weights do not fit"):
                load_backbone(name, weights=path)
        torch.save(state | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, path)
        with pytest.raises(InputError, match=r"conv1.weight \(64, 3, 3, 3\) for \(64, 3, 7, 7\)"):
            load_backbone("resnet18", weights=path)

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    @pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
    def test_a_damaged_file_is_named(self, tmp_path, suffix, content):
        path = tmp_path / f"damaged.{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"damaged.{suffix}: weights file"):
            read_checkpoint(path)

    def test_no_code_in_a_file_is_run(self, tmp_path):
        marker = tmp_path / "marker"
        (tmp_path / "evil.pth").write_bytes(pickle.dumps(_Touch(marker), protocol=2))
        torch.save({"state_dict": _Touch(marker)}, tmp_path / "worse.pth")
        for name in ("evil.pth", "worse.pth"):
            with pytest.raises(InputError, match=name):
                read_checkpoint(tmp_path / name)
        assert not marker.exists()

    def test_a_file_without_tensors_is_named(self, tmp_path):
        torch.save({"step": 3}, tmp_path / "empty.pth")
        with pytest.raises(InputError, match="holds no tensors"):
            read_checkpoint(tmp_path / "empty.pth")


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_fingerprint_tells_weights_apart():
    torch.manual_seed(0)
    a = load_backbone("resnet18", pretrained=False)
    torch.manual_seed(0)
    b = load_backbone("resnet18", pretrained=False)
    assert a.fingerprint() == b.fingerprint()
    with torch.no_grad():
        b.net.layer3[0].conv1.weight[0, 0, 0, 0] += 1e-3
    assert a.fingerprint() != b.fingerprint()
    assert a.fingerprint() == a.to(memory_format=torch.channels_last).fingerprint()
