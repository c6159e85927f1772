"""What the benchmarks of the numerical core share: time, memory and the machine's own rate."""

import statistics
import time
from pathlib import Path

import torch

from weakseg.product import linear


def resident(which):
    """Memory of this process in MiB, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def extra_memory(function):
    """MiB that a call takes at its peak, beyond what was there before. Linux only."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
    function()
    return resident("VmHWM") - before


def seconds(functions, repeats=5):
    """(wall, processor) seconds of each function, medians; their runs take turns."""
    times = [[] for _ in functions]
    for function in functions:
        function()
    for _ in range(repeats):
        for function, taken in zip(functions, times, strict=True):
            wall, processor = time.perf_counter(), time.process_time()
            function()
            taken.append((time.perf_counter() - wall, time.process_time() - processor))
    return [tuple(map(statistics.median, zip(*taken, strict=True))) for taken in times]


def timed_on_cuda(function, repeats=5):
    """Seconds of a call by the GPU's own clock, median, after 3 calls to warm up."""
    for _ in range(3):
        function()
    taken = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end) / 1e3)
    return statistics.median(taken)


def matmul_rate():
    """Float32 GFLOP/s of a product of two 2048 x 2048 matrices, by the faster of two libraries."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    times = seconds([lambda: a @ b, lambda: linear(a, b)])
    return 2 * 2048**3 / min(wall for wall, _ in times) / 1e9


def machine():
    """One line that says what the figures were taken on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":")[1].strip()
            break
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, {model}"
