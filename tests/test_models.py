"""What every backbone must do, whatever timm calls it; the weights; the head."""

from __future__ import annotations

import math

import pytest
import torch

from weakseg.errors import InputError
from weakseg.models import (
    Backbone,
    freeze_stem,
    load_backbone,
    set_frozen_bn,
)

# One for each way that timm makes feature maps: dilated, not dilated, channels last, plain
# transformer, patch of 14, register tokens, one fixed input size.
BACKBONES = [
    "tf_efficientnet_lite0",
    "resnet18",
    "convnext_atto",
    "mobilenetv3_small_050",
    "edgenext_xx_small",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "efficientformer_l1",
]


@pytest.fixture(scope="module")
def backbones() -> dict[tuple[str, int], Backbone]:
    return {}


def untrained(backbones: dict[tuple[str, int], Backbone], name: str, stride: int) -> Backbone:
    if (name, stride) not in backbones:
        torch.manual_seed(0)
        backbones[name, stride] = load_backbone(name, output_stride=stride, pretrained=False)
    return backbones[name, stride]


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", BACKBONES)
class TestContract:
    def test_maps_have_the_promised_shapes_at_any_size(self, backbones, name, stride):
        backbone = untrained(backbones, name, stride)
        assert backbone.name == name
        assert backbone.output_stride == stride
        assert max(backbone.strides) == stride
        for height, width in [(75, 110), (33, 47)]:
            images = torch.rand(1, 3, height, width)
            with torch.no_grad():
                maps = backbone(images)
                stacked = backbone.stacked(images, 8) if height == 33 else None
            assert [tuple(m.shape) for m in maps] == [
                (1, c, math.ceil(height / s), math.ceil(width / s))
                for c, s in zip(backbone.channels, backbone.strides, strict=True)
            ]
            assert all(torch.isfinite(m).all() for m in maps)
        assert stacked is not None
        assert tuple(stacked.shape) == (1, sum(backbone.channels), 5, 6)

    def test_images_of_a_batch_do_not_touch_each_other(self, backbones, name, stride):
        backbone = untrained(backbones, name, stride)
        images = torch.rand(2, 3, 32, 48)
        with torch.no_grad():
            both, alone = backbone(images), backbone(images[1:])
        for a, b in zip(both, alone, strict=True):
            torch.testing.assert_close(a[1:], b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "resnet18", "swin_tiny_patch4_window7_224"]
)
def test_gradients_reach_every_parameter(name):
    backbone = load_backbone(name, pretrained=False, taps=[-1]).train()
    backbone(torch.rand(2, 3, 64, 64))[0].square().mean().backward()
    without = [n for n, p in backbone.named_parameters() if p.grad is None]
    assert not without


@pytest.mark.parametrize(
    ("name", "stride"),
    [("resnet18", 16), ("resnet18", 8), ("edgenext_xx_small", 16), ("vit_small_patch14_dinov2", 8)],
)
def test_position_r_c_sees_the_pixels_around_it(name, stride):
    """A patch changed at (r, c) changes the features there most: no shift, no transposition."""
    torch.manual_seed(0)
    backbone = load_backbone(name, output_stride=stride, pretrained=False)
    image = torch.full((1, 3, 150, 230), 0.5)
    y, x = 40, 168
    changed = image.clone()
    changed[:, :, y - 6 : y + 6, x - 6 : x + 6] = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        maps, others = backbone(image), backbone(changed)
    change = (maps[0] - others[0]).abs().mean(1)[0]
    rows = (torch.arange(change.shape[0]) + 0.5) * backbone.strides[0]
    columns = (torch.arange(change.shape[1]) + 0.5) * backbone.strides[0]
    weight = change * (change > change.max() / 2)
    centre = (weight.sum(1) @ rows / weight.sum(), weight.sum(0) @ columns / weight.sum())
    assert abs(centre[0] - y) < 12
    assert abs(centre[1] - x) < 12


def test_images_are_normalised_inside():
    backbone = load_backbone("resnet18", pretrained=False)
    seen = []
    backbone.net.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        backbone(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 64, 64))
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 64, 64), atol=1e-6, rtol=0)


def test_taps_choose_levels():
    backbone = load_backbone("resnet18", pretrained=False, taps=[1, -1])
    assert backbone.channels == (64, 512)
    assert backbone.strides == (4, 16)
    plain = load_backbone("vit_tiny_patch16_224", pretrained=False, taps=[5])
    assert plain.channels == (192,)
    with torch.no_grad():
        maps = plain(torch.rand(1, 3, 64, 64))
    # Layer-normed: no block's scale stands out.
    assert maps[0].std(1).mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet81"}, "unknown backbone: found resnet81; expected one of .*resnet18"),
        ({"name": "hf-hub:someone/model"}, "unknown backbone"),
        ({"name": "resnet18", "output_stride": 12}, "found 12; expected 8, 16 or 32"),
        ({"name": "resnet18", "taps": [7]}, "found \\[7\\]; expected indices 0 to 4"),
        ({"name": "resnet18", "taps": []}, "unusable taps"),
        ({"name": "resnet18", "weights": "nowhere.pth"}, "nowhere.pth: no such weights file"),
    ],
)
def test_bad_requests_say_what_would_be_right(arguments, message):
    with pytest.raises(InputError, match=message):
        load_backbone(**{"pretrained": False} | arguments)


class TestFreezing:
    @pytest.mark.parametrize(
        ("name", "last", "after"),
        [
            ("tf_efficientnet_lite0", "blocks.1.1.bn3.bias", "blocks.2.0.conv_pw.weight"),
            ("resnet18", "layer1.1.bn2.bias", "layer2.0.conv1.weight"),
            ("convnext_atto", "stages_0.blocks.1.mlp.fc2.bias", "stages_1.downsample.0.weight"),
            ("vit_tiny_patch16_224", "model.blocks.0.mlp.fc2.bias", "model.blocks.1.norm1.weight"),
            ("hrnet_w18_small", "transition1.1.0.1.bias", "stage2.0.branches.0.0.conv1.weight"),
        ],
    )
    def test_stem_and_first_stage(self, name, last, after):
        backbone = load_backbone(name, pretrained=False)
        frozen = freeze_stem(backbone)
        parameters = dict(backbone.named_parameters())
        assert frozen == [n for n, p in parameters.items() if not p.requires_grad]
        assert frozen[-1] == f"net.{last}"
        assert parameters[f"net.{after}"].requires_grad

    def test_frozen_batch_norm_keeps_its_statistics_while_training(self):
        backbone = load_backbone("resnet18", pretrained=False)
        freeze_stem(backbone)
        backbone.train()
        before = {k: v.clone() for k, v in backbone.state_dict().items()}
        backbone(torch.rand(2, 3, 64, 64))
        after = backbone.state_dict()
        assert torch.equal(before["net.bn1.running_mean"], after["net.bn1.running_mean"])
        assert not torch.equal(
            before["net.layer2.0.bn1.running_mean"], after["net.layer2.0.bn1.running_mean"]
        )

    def test_all_batch_norm_can_be_frozen(self):
        backbone = load_backbone("resnet18", pretrained=False)
        assert set_frozen_bn(backbone) == 20
        backbone.train()
        before = {k: v.clone() for k, v in backbone.state_dict().items()}
        backbone(torch.rand(2, 3, 64, 64)).pop().sum().backward()
        assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())
        assert backbone.net.layer4[0].conv1.weight.grad is not None
