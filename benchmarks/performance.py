"""All performance benchmarks, one after the other, each in a process of its own.

    uv run --group oracle python benchmarks/performance.py > performance.md     # about 20 minutes
    uv run python benchmarks/performance.py --quick                             # about 6

Prints the tables of docs/performance.md: the contrast, the grouping, the random walk, the dense
CRF, steps of training with cached features and with the backbone. On a machine with a GPU the
contrast, the grouping and the fine-tune step are measured there too. Without a C++ compiler leave
out `--group oracle`: the CRF is then measured alone. Two cores that nobody else uses give figures
that mean something; on a machine with others on it, compare processor seconds.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent


def sections(quick):
    """Title, script and arguments of each."""
    fewer = ["--quick"] if quick else []
    yield "Contrast", "contrast.py", fewer
    yield "Grouping", "grouping.py", fewer
    yield "Random walk", "random_walk.py", []
    yield "Dense CRF", "crf.py", ["--photos", "2", "--repeats", "3"] if quick else []
    yield "Steps on cached features", "frozen_steps.py", []
    for stride in (16, 8):
        title = f"Fine-tune step, output stride {stride}"
        yield title, "train_step.py", ["--output-stride", str(stride)]
    if torch.cuda.is_available():
        yield "Contrast on a GPU", "contrast.py", ["--device", "cuda"]
        yield "Grouping on a GPU", "grouping.py", ["--device", "cuda"]
        for stride in (16, 8):
            arguments = ["--device", "cuda", "--output-stride", str(stride)]
            yield f"Fine-tune step on a GPU, output stride {stride}", "train_step.py", arguments


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sweeps, fewer repeats")
    options = parser.parse_args()
    failed = []
    for title, script, arguments in sections(options.quick):
        load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        print(f"## {title}\n\n`{script} {' '.join(arguments)}`; load at its start {load}.\n")
        sys.stdout.flush()
        start = time.perf_counter()
        done = subprocess.run([sys.executable, HERE / script, *arguments])
        if done.returncode:
            failed.append(title)
        print(f"\n({time.perf_counter() - start:.0f} s)\n", flush=True)
    if not torch.cuda.is_available():
        print("No GPU here: what would be measured on one is left out.")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
