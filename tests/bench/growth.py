"""Measures how a node grows: the same at 10,000, 100,000 and 1,000,000 passages, as JSON, as a table and as a plot.

    make bench-growth                                  half an hour
    make bench-growth BENCH="--passages 1000,10000"    a short one

Costs are the node's processor time (user and system). The plot has logarithmic axes: what grows as the number of passages does
is a line from corner to corner.
"""

import argparse
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))

import bench  # noqa: E402

CLIENTS = 16


def measure(binary, passages, seconds):
    with tempfile.TemporaryDirectory() as scratch:
        corpus, data = pathlib.Path(scratch, "corpus"), pathlib.Path(scratch, "data")
        subprocess.run([sys.executable, HERE / "corpus.py", corpus, "--files", str(passages // 10)], check=True)
        node, told = bench.Node(binary, data), {}
        count = bench.ingest(binary, node, data, corpus, told)
        row = {"passages": count, "ingest_per_second": number(told["ingest, durable and searchable"])}
        row["ingest_us"] = number(told["ingest, node CPU"])
        row["with_graph_us"] = number(told["graph, segments and checkpoint included"])
        node.stop()
        starts = []
        for _ in range(5):
            node = bench.Node(binary, data)
            starts.append(node.start_seconds * 1e3)
            if len(starts) < 5:
                node.stop()
        row["start_ms"], row["memory_after_start_mib"] = statistics.median(starts), node.memory("VmRSS")
        bench.wrk(node, corpus, CLIENTS, 2 + passages // 100_000)
        row["recall_at_10"] = recall(node, corpus)
        for kind in ("uncached", "cached"):
            told = {}
            bench.searches(node, corpus, "modern", kind, CLIENTS, seconds, told)
            row[f"{kind}_us"] = number(next(iter(told.values())))
        row["memory_mib"] = node.memory("RssAnon")
        row["mapped_mib"] = node.memory("RssFile")
        node.stop()
        row["disk_mib"] = bench.size(data)
        return row


def recall(node, corpus):
    """Part of the ten nearest that searches find. The node looks once it was asked for a minute; where it finds that it has to look
    further, all that is measured from then on is measured with that."""
    if not node.metric("cairn_passages") > 20_000:
        # Scanned exactly.
        return 1.0
    for _ in range(60):
        found = node.metric("cairn_vector_recall")
        if found:
            return found
        bench.wrk(node, corpus, 1, 1)
        time.sleep(1)
    sys.exit("the node did not tell its recall")


def number(text):
    return float(re.search(r"[\d,.]+", text)[0].replace(",", ""))


def plot(rows, path):
    """Cost of a search against the size, both logarithmic, as SVG."""
    width, height, margin, right_margin = 680, 360, 70, 110
    sizes = [row["passages"] for row in rows]
    costs = [row[key] for row in rows for key in ("uncached_us", "cached_us")]
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))

    def x(size):
        left, right = math.log10(sizes[0]), math.log10(sizes[-1])
        return margin + (width - margin - right_margin) * (math.log10(size) - left) / max(right - left, 1e-9)

    def y(cost):
        return height - margin - (height - 2 * margin) * (math.log10(cost) - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{margin}" y="24" font-size="15">Processor time of a search, by the number of passages</text>',
    ]
    for power in range(low, high + 1):
        place = y(10**power)
        parts.append(f'<line x1="{margin}" y1="{place:.1f}" x2="{width - right_margin}" y2="{place:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{margin - 8}" y="{place + 4:.1f}" text-anchor="end">{10**power:,} µs</text>')
    for size in sizes:
        parts.append(f'<text x="{x(size):.1f}" y="{height - margin + 22}" text-anchor="middle">{size:,}</text>')
    for key, name, colour in (("uncached_us", "searched", "#0b6e99"), ("cached_us", "remembered", "#b45309")):
        line = " ".join(f"{x(row['passages']):.1f},{y(row[key]):.1f}" for row in rows)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for row in rows:
            place, value = x(row["passages"]), y(row[key])
            parts.append(f'<circle cx="{place:.1f}" cy="{value:.1f}" r="4" fill="{colour}"/>')
            parts.append(f'<text x="{place:.1f}" y="{value - 10:.1f}" text-anchor="middle" fill="{colour}">{row[key]:.0f}</text>')
        parts.append(
            f'<text x="{x(sizes[-1]) + 14:.1f}" y="{y(rows[-1][key]) + 5:.1f}" fill="{colour}">{name}</text>'
        )
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cairn", required=True, type=pathlib.Path)
    parser.add_argument("--passages", default="10000,100000,1000000")
    parser.add_argument("--seconds", type=int, default=8, help="a round of searches")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of growth.json, growth.md and growth.svg")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    rows = []
    for passages in map(int, arguments.passages.split(",")):
        row = {**measure(arguments.cairn.resolve(), passages, arguments.seconds), "dimensions": 256, "cores": os.cpu_count(), "commit": commit}
        print(json.dumps(row), flush=True)
        rows.append(row)
    names = {
        "uncached_us": "search, µs CPU a call", "cached_us": "remembered, µs CPU a call",
        "ingest_per_second": "ingest, passages a second", "ingest_us": "ingest, µs CPU a passage",
        "with_graph_us": "the same with graph and segments", "start_ms": "start to ready, ms",
        "memory_after_start_mib": "resident after the start, MiB", "memory_mib": "memory of its own after searches, MiB",
        "mapped_mib": "mapped files in memory after searches, MiB", "disk_mib": "on disk, MiB",
    }
    lines = ["| passages | " + " | ".join(f"{row['passages']:,}" for row in rows) + " |", "|---|" + "---:|" * len(rows)]
    lines.append("| recall@10 of the vectors | " + " | ".join(f"{row['recall_at_10']:.3f}" for row in rows) + " |")
    lines += [f"| {name} | " + " | ".join(f"{row[key]:,.0f}" for row in rows) + " |" for key, name in names.items()]
    table = "\n".join(lines) + f"\n\n{rows[0]['cores']} cores, 256 dimensions, commit {commit}\n"
    print(table)
    (arguments.out / "growth.json").write_text(json.dumps(rows, indent=1))
    (arguments.out / "growth.md").write_text(table)
    plot(rows, arguments.out / "growth.svg")


if __name__ == "__main__":
    main()
