"""How good the method is, for every kind of label: runs what is missing, keeps each result.

    uv run --with scikit-learn python benchmarks/quality/run.py --data DATASET --out RESULTS
    uv run python benchmarks/quality/tables.py RESULTS

The whole of it takes days of two cores. Results are kept one by one, a file each, so a stopped run
goes on where it was, and a second call does only what is missing. `--table` and `--row` choose.
Training and measuring as `weakseg train` does it: trained on the weak labels of the part train,
measured on val, frozen EfficientNet-Lite2, long side 416; masks of train serve "masks" alone.
"""

import argparse
import fnmatch
import importlib
import os
import shutil
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from inside import inside
from jobs import TABLES, jobs
from others import CamAlone, Forest, enlarged
from protocols import by_protocol, measured
from rich.console import Console
from safetensors.torch import load_file
from tries import trying
from variants import held_out, variant

from weakseg.cam import Tagger
from weakseg.dataset import Dataset
from weakseg.features import extract_features
from weakseg.files import write_json
from weakseg.models import load_final
from weakseg.training import fit, stages
from weakseg.training.cam_stage import STRIDE, cam_stage
from weakseg.training.fit import seed_grid

training = importlib.import_module("weakseg.training.fit")  # the package's `fit` is the function


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="data set with masks for val")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    parser.add_argument("--work", type=Path, help="folder of runs; default OUT/work")
    parser.add_argument("--table", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--row", default="*", help="rows to run, as a pattern")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="measure on every fourth training image, which is not trained on, instead of val",
    )
    parser.add_argument("--plain", action="store_true", help="single scale without CRF only")
    parser.add_argument("--list", action="store_true", help="only say what is missing")
    args = parser.parse_args()
    work = args.work or args.out / "work"
    data = held_out(args.data, work / "data" / "held-out") if args.held_out else args.data
    for job in jobs(args.table, args.seeds):
        file = args.out / f"{job.name}.json"
        if file.exists() or not fnmatch.fnmatch(job.row, args.row):
            continue
        print(job.name, flush=True)
        if not args.list:
            if args.plain:
                job = replace(job, protocols=("plain",))
            write_json(file, result(job, data, work))


def result(job, data, work):
    """Train and measure; the run's folder is removed when its figures are known."""
    if job.variant is not None:
        name, change, kinds = job.variant
        data = variant(data, work / "data" / name, change, kinds)
    dataset = Dataset.open(data)
    recipe = replace(job.recipe, seed=job.seed, baselines=job.baselines)
    folder = work / job.name.replace("/", "-")
    class_maps = work / "class-maps" / f"{'-'.join(recipe.kinds)}-seed{job.seed}"
    sharing = shared_class_maps(class_maps) if job.inside else nullcontext()
    begun, used = time.time(), time.process_time()
    with sharing, trying(job.trying):
        fitted = fit(dataset, recipe, out=folder, console=Console(width=100))
        taken = {"wall_s": time.time() - begun, "cpu_s": time.process_time() - used}
        parts = inside(fitted) if job.inside else {}
    figures = {
        method: {"plain": {"miou": fitted.miou[method], "iou": fitted.iou[method]}}
        for method in fitted.models
    }
    for method, model in fitted.models.items():
        figures[method] |= by_protocol(model, fitted.evaluated, job.protocols)
    if job.baselines:
        figures |= others(fitted, job)
    figures |= parts
    shutil.rmtree(folder)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return {
        "job": job.name,
        "figures": figures,
        "protocol": fitted.protocol,
        "settings": {k: str(v) for k, v in vars(recipe).items()},
        "time": taken | {"threads": threads},
    }


@contextmanager
def shared_class_maps(folder):
    """Runs of one seed on the same labels, the ablation's, make their class maps once."""

    def shared(job):
        mine = job.run.stages
        if folder.exists():
            shutil.copytree(folder, mine, dirs_exist_ok=True)
        maps = cam_stage(job)
        if not folder.exists():
            shutil.copytree(mine, folder)  # the run's first stage: there is nothing else yet
        return maps

    with patch.object(training, "cam_stage", shared):
        yield


def others(fitted, job):
    """A forest on the same seeds and, for tags, CAM alone."""
    run, val = fitted.job, fitted.evaluated
    backbone = fitted.segmenter.backbone
    train = stages.features_of(run, run.dataset, backbone, "train")
    test = stages.features_of(run, val, backbone, "measured")
    position = {entry.name: i for i, entry in enumerate(val)}
    forest = Forest(run, train, seed_grid(run, train), job.seed)

    def by_forest(entry):
        scores = forest.scores(test[position[entry.name]])
        return enlarged(scores, (entry.height, entry.width))

    figures = {"forest": {"plain": measured(by_forest, val)}}
    if run.recipe.kinds == ("tags",):
        final = final_features(run, val)
        tagger = Tagger(final.channels, len(run.labels.info.classes)).eval()
        tagger.load_state_dict(load_file(run.run.stages / "tagger.safetensors"))
        cam = CamAlone(tagger, run.labels.info)

        def by_cam(entry):
            scores = cam.scores(stages.features_at(final, position[entry.name], run.fabric.device))
            return enlarged(scores, (entry.height, entry.width))

        figures["cam"] = {"plain": measured(by_cam, val)}
    return figures


def final_features(run, dataset):
    """The last feature maps of the images of `dataset`, as the tagger reads them."""
    recipe = run.recipe
    backbone = load_final(recipe.backbone, output_stride=recipe.output_stride)
    return extract_features(
        dataset,
        backbone.to(run.fabric.device),
        cache_dir=run.cache / "features",
        long_side=recipe.long_side,
        stride=STRIDE,
        precision=recipe.precision,
        workers=1,
    )


if __name__ == "__main__":
    main()
