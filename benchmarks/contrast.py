"""The contrast against its plain formulation (reference/dense.py): time, memory, growth.

    uv run python benchmarks/contrast.py            # all of it, some minutes
    uv run python benchmarks/contrast.py --quick    # the sweeps only as far as they are fast
    uv run python benchmarks/contrast.py --device cuda

Forward and backward in float32, 21 classes, D = 64, relation "same class"; pixels scatter round
the prototype of their segment. The two take turns in one process for the times (medians of 5),
and run in a process of their own each for the memory at the peak beyond the inputs. Times are
wall seconds and, in brackets, processor seconds, which another program's load disturbs less. The
share of the matrix product is that of the three products that cannot be done without.
"""

import sys
from pathlib import Path

import torch
from against_plain import main, memory_of
from measure import extra_memory, machine, matmul_rate, seconds, timed_on_cuda
from torch.nn.functional import normalize

sys.path.insert(0, str(Path(__file__).parent / "reference"))
import dense

from weakseg.contrast import segment_contrast

D, CLASSES, K = 64, 21, 16.0
MAIN, LARGE = (65_536, 2_649), (262_144, 10_000)
DENSE_ELEMENTS = (
    200e6  # beyond this the plain formulation needs more memory than many machines have
)
SWEEP_N = [4_096, 16_384, 65_536, 262_144]
SWEEP_S = [250, 1_000, 2_649, 10_000]


def problem(n, s, *, device="cpu", dtype=torch.float32):
    random = torch.Generator().manual_seed(0)
    prototypes = normalize(torch.randn(s, D, generator=random), dim=1)
    own = torch.randint(s, (n,), generator=random)
    pixels = normalize(prototypes[own] + 0.1 * torch.randn(n, D, generator=random), dim=1)
    seed = torch.randint(CLASSES, (s,), generator=random)
    table = 2 * torch.eye(CLASSES, dtype=torch.int8) - 1
    leaves = [x.to(device, dtype).requires_grad_() for x in (pixels, prototypes)]
    return *leaves, *(x.to(device) for x in (own, seed[own], seed, table))


def weakseg(pixels, prototypes, own, pixel_group, prototype_group, relation):
    return segment_contrast(
        pixels,
        prototypes,
        own=own,
        pixel_group=pixel_group,
        prototype_group=prototype_group,
        relation=relation,
        concentration=K,
    )


def plain(*inputs):
    return dense.contrast(*inputs, K)


METHODS = {"dense": plain, "weakseg": weakseg}


def step(method, inputs):
    """Forward and backward."""
    inputs[0].grad = inputs[1].grad = None
    loss = method(*inputs).mean()
    loss.backward()
    return loss.item()


def one(method, n, s):
    step(METHODS[method], problem(64, 64))  # what torch itself takes is not counted
    inputs = problem(int(n), int(s))
    print(extra_memory(lambda: step(METHODS[method], inputs)))


def compare(n, s, rate, *, with_memory=False, repeats=5):
    """One row: both methods where the plain one fits, ours alone where it does not."""
    inputs = problem(n, s)
    fits = n * s <= DENSE_ELEMENTS
    names = ["dense", "weakseg"] if fits else ["weakseg"]
    times = seconds([lambda m=METHODS[name]: step(m, inputs) for name in names], repeats)
    (wall, processor), share = times[-1], 6 * n * s * D / times[-1][0] / 1e9 / rate
    row = [f"{n:,}", f"{s:,}", "-", f"{wall:.3f} ({processor:.3f})", "-", f"{share:.0%}"]
    if fits:
        row[2] = f"{times[0][0]:.3f} ({times[0][1]:.3f})"
        row[4] = f"{times[0][0] / wall:.1f} ({times[0][1] / processor:.1f})"
    if with_memory:
        ours = memory_of(__file__, "weakseg", n, s)
        row.append(f"{ours:,.0f}")
        if fits:
            theirs = memory_of(__file__, "dense", n, s)
            row += [f"{theirs:,.0f}", f"{theirs / ours:.0f}"]
        else:
            row += [f"over {4 * n * s * 3 / 2**20:,.0f}", "-"]
    print("| " + " | ".join(row) + " |", flush=True)


def header(*columns):
    print("| " + " | ".join(columns) + " |")
    print("| " + " | ".join("---" for _ in columns) + " |", flush=True)


COLUMNS = ("N", "S", "dense s", "weakseg s", "ratio", "of matmul rate")


def on_cpu(quick):
    rate = matmul_rate()
    print(f"{machine()}; matrix product {rate:.0f} GFLOP/s\n")
    header(*COLUMNS, "weakseg extra MiB", "dense extra MiB", "ratio")
    compare(*MAIN, rate, with_memory=True)
    if not quick:
        compare(*LARGE, rate, with_memory=True, repeats=1)
    print("\nGrowth with N, then with S:\n")
    header(*COLUMNS)
    for n in SWEEP_N[: 3 if quick else 4]:
        compare(n, MAIN[1], rate, repeats=3)
    for s in SWEEP_S[: 3 if quick else 4]:
        compare(16_384, s, rate, repeats=3)


def on_cuda():
    """bfloat16 on a GPU: ours, the plain formulation and torch.compile of it."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    rate = 2 * 8192**3 / timed_on_cuda(lambda: a @ a) / 1e12
    copied = torch.empty(2**28, device="cuda")
    bandwidth = 2 * 4 * 2**28 / timed_on_cuda(lambda: copied.clone()) / 1e12
    print(
        f"{torch.cuda.get_device_name()}; product {rate:.0f} TFLOP/s, copy {bandwidth:.2f} TB/s\n"
    )
    header("N", "S", "method", "ms", "TFLOP/s", "of matmul rate", "extra MiB")
    methods = METHODS | {"dense, compiled": torch.compile(plain)}
    for n, s in (MAIN, LARGE):
        inputs = problem(n, s, device="cuda", dtype=torch.bfloat16)
        for name, method in methods.items():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            try:
                taken = timed_on_cuda(lambda method=method, inputs=inputs: step(method, inputs))
            except torch.OutOfMemoryError:
                print(f"| {n:,} | {s:,} | {name} | out of memory | | | |", flush=True)
                continue
            extra = (torch.cuda.max_memory_allocated() - before) / 2**20
            flops = 6 * n * s * D / taken / 1e12
            row = [f"{taken * 1e3:.2f}", f"{flops:.1f}", f"{flops / rate:.0%}", f"{extra:,.0f}"]
            print(f"| {n:,} | {s:,} | {name} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main(__doc__, one=one, on_cpu=on_cpu, on_cuda=on_cuda)
