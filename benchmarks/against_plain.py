"""The command line of the benchmarks that set ours against a plain formulation."""

import argparse
import subprocess
import sys


def memory_of(script, *problem):
    """MiB that `one` of a script prints for a method and a problem, in a process of its own."""
    command = [sys.executable, script, "--one", *map(str, problem)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(doc, *, one, on_cpu, on_cuda):
    """Call one of the three as the command line says; `one` gets the strings of `memory_of`."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, smaller sweeps")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(*options.one)
    elif options.device == "cuda":
        on_cuda()
    else:
        on_cpu(options.quick)
