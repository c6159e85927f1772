"""Print the results of run.py as tables: mean over seeds, and half the range between them.

uv run python benchmarks/quality/tables.py RESULTS
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean

METHODS = {
    "weakseg": "weakseg",
    "cross_entropy": "cross-entropy",
    "forest": "random forest",
    "cam": "CAM alone",
    "vote": "vote of segments",
    "pseudo-masks": "pseudo-masks of train",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("results", type=Path)
    args = parser.parse_args()
    for table, rows in read(args.results).items():
        print(f"\n## {table}\n")
        show(rows)


def read(folder):
    """{table: {row: [result of each seed]}}."""
    tables = defaultdict(lambda: defaultdict(list))
    for file in sorted(folder.glob("*/*/seed*.json")):
        tables[file.parts[-3]][file.parts[-2]].append(json.loads(file.read_text()))
    return tables


def show(rows):
    """One row a job, one column for each method and protocol."""
    columns = []
    for results in rows.values():
        for result in results:
            for method, protocols in result["figures"].items():
                for protocol in protocols:
                    if (method, protocol) not in columns:
                        columns.append((method, protocol))
    columns.sort(key=lambda c: (list(METHODS).index(c[0]), c[1] != "plain", c[1]))
    heads = [METHODS[m] + ("" if p == "plain" else f", {p}") for m, p in columns]
    print("| | " + " | ".join([*heads, "seeds", "minutes"]) + " |")
    print("| --- |" + " --- |" * (len(columns) + 2))
    for row, results in rows.items():
        cells = [cell(results, *column) for column in columns]
        minutes = mean(r["time"]["cpu_s"] for r in results) / 60
        print(f"| {row} | " + " | ".join([*cells, str(len(results)), f"{minutes:.0f}"]) + " |")


def cell(results, method, protocol):
    values = [
        100 * r["figures"][method][protocol]["miou"]
        for r in results
        if protocol in r["figures"].get(method, {})
    ]
    if not values:
        return ""
    spread = f" ± {(max(values) - min(values)) / 2:.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
