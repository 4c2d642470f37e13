"""Measures a GPU: its kernels alone, PyTorch beside them where it is installed, and a node that searches on it.

    make bench-gpu                                                   the whole of it; minutes on a large card
    python3 tests/bench/gpu.py --cairn BINARY [--rows 100000,1000000] [--passages 200000] [--skip kernels,torch,node] [--json FILE]

Vectors have 384 numbers; the node's own have 256. `software` among the ways of the node takes a rasteriser, for trying this out.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import bench

HERE = pathlib.Path(__file__).parent
DIMENSIONS = 384
BATCHES = (1, 8, 64, 256)


def kernels(binary, rows, software):
    """What `cairn gpu bench` tells, a row a batch."""
    command = [binary, "gpu", "bench", "--rows", str(rows), "--dimensions", str(DIMENSIONS), "--json"]
    told = subprocess.run(command + ["--software"] * software, capture_output=True, text=True)
    if told.returncode:
        sys.exit(told.stderr.strip())
    answer = json.loads(told.stdout)
    return [{"gpu": answer["gpu"]["name"], "rows": rows, **one} for one in answer["rounds"]]


def reference(sizes):
    """Inner products and the ten best of them by PyTorch, down to the answer in the machine's memory, and a plain copy on the device."""
    try:
        import torch
    except ImportError:
        return [], "PyTorch is not installed"
    if not torch.cuda.is_available():
        return [], "PyTorch finds no GPU"

    def seconds(work, rounds=20):
        times = []
        for _ in range(rounds + 5):
            torch.cuda.synchronize()
            start = time.perf_counter()
            work()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return statistics.median(times[5:])

    source = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    # Each byte is read and written.
    copied = 2 * source.numel() / seconds(lambda: target.copy_(source))
    del source, target
    found = []
    for size in sizes:
        vectors = torch.randn(size, DIMENSIONS, device="cuda", dtype=torch.float16)
        for batch in BATCHES:
            queries = torch.randn(batch, DIMENSIONS, device="cuda", dtype=torch.float16)
            took = seconds(lambda: torch.topk(queries @ vectors.T, 10, dim=1).values.cpu())
            found.append({"what": "PyTorch, halves", "rows": size, "batch": batch, "p50_ms": took * 1e3, "queries_per_second": batch / took})
        del vectors
    return found, f"a copy on the device moves {copied / 1e9:,.0f} GB/s, counting bytes read and written"


def started(binary, data, way, recall):
    os.environ["CAIRN_INDEX_GPU"], os.environ["CAIRN_INDEX_RECALL"] = way, recall
    return bench.Node(binary, data)


def state(node):
    return json.load(urllib.request.urlopen(node.addresses["admin"] + "/ready"))["gpu"]


def nodes(binary, passages, seconds, ways):
    """A node's searches over MCP, by the graph and by the GPU: the same data and questions."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        corpus, data = pathlib.Path(scratch) / "corpus", pathlib.Path(scratch) / "data"
        command = [sys.executable, HERE / "corpus.py", corpus, "--files", str(passages // 10)]
        subprocess.run(command, check=True)
        node = started(binary, data, "off", "0.95")
        bench.ingest(binary, node, data, corpus, {})
        node.stop()
        for way in ways:
            gpu, recall = way.split(":")
            node = started(binary, data, gpu, recall)
            who = "graph, 80 candidates"
            if gpu != "off":
                while state(node)["state"] == "starting" or "loaded" in str(state(node)) or "opened" in str(state(node)):
                    time.sleep(0.1)
                who = (state(node).get("collections") or [{"reason": state(node).get("reason")}])[0]["reason"]
            elif float(recall):
                for _ in range(90):
                    if node.metric("cairn_vector_recall"):
                        break
                    bench.wrk(node, corpus, 16, 1)
                who = f"graph, recall {node.metric('cairn_vector_recall'):.3f} (asked {recall})"
            for clients in (1, 16, 64, 256):
                told = {}
                bench.searches(node, corpus, "modern", "uncached", clients, seconds, told)
                rows.append({"what": f"node, gpu = {gpu}", "who": who, "passages": passages, "clients": clients, "measured": next(iter(told.values()))})
                print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
            node.stop()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cairn", required=True, type=pathlib.Path)
    parser.add_argument("--rows", default="100000,1000000,10000000")
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--seconds", type=int, default=5, help="a round of the node's searches")
    parser.add_argument("--ways", default="off:0,off:0.99,auto:0.95", help="of the node: index.gpu and index.recall")
    parser.add_argument("--software", action="store_true", help="take a rasteriser, to try this out")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--skip", default="")
    arguments = parser.parse_args()
    binary, sizes = arguments.cairn.resolve(), [int(size) for size in arguments.rows.split(",")]
    skip, rows, copied = set(arguments.skip.split(",")), [], None
    if "kernels" not in skip:
        for size in sizes:
            rows += kernels(binary, size, arguments.software)
    if "torch" not in skip:
        found, copied = reference(sizes)
        rows += found
    if rows:
        print("| what | vectors | batch | queries a second | p50 | p99 | on the device | read |\n|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        millis = [f"{row[key]:.2f} ms" if row.get(key) else "" for key in ("p50_ms", "p99_ms", "device_p50_ms")]
        read = f"{row['bytes_per_second'] / 1e9:,.0f} GB/s" if row.get("bytes_per_second") else ""
        print(f"| {row['what']} | {row['rows']:,} | {row['batch']} | {row['queries_per_second']:,.0f} | {' | '.join(millis)} | {read} |")
    if copied:
        print(f"\n{copied}")
    if "node" not in skip:
        rows += nodes(binary, arguments.passages, arguments.seconds, arguments.ways.split(","))
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    print(f"\n{os.cpu_count()} cores, commit {commit}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "copy": copied, "cores": os.cpu_count(), "commit": commit}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
