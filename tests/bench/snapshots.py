"""Measures snapshots, their proof and the way back, and how the log is cleared out.

    python3 tests/bench/snapshots.py --cairn BINARY [--passages 100000]

What is told: how long a snapshot takes and what it adds to the disk beside the log, the longest time that a small write took
meanwhile and otherwise, how much the next one moves for how much that changed, how long the proof and a restore take, and what
ten rounds over the same documents leave on the disk and wrote to it.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from bench import HERE, Node, size


def run(binary, data, *arguments):
    command = [binary, "--json", *arguments, "--data-dir", data]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr}")
    return json.loads(done.stdout), time.perf_counter() - start


def post(node, path, body):
    base = node.addresses["mcp"].removesuffix("/mcp")
    request = urllib.request.Request(base + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request).read() or b"null")


def blocks(directory):
    """Bytes that a directory takes on the disk; a file with several names counts once."""
    seen, total = set(), 0
    for path in pathlib.Path(directory).rglob("*"):
        stat = path.stat()
        if path.is_file() and (stat.st_dev, stat.st_ino) not in seen:
            seen.add((stat.st_dev, stat.st_ino))
            total += stat.st_blocks * 512
    return total / 2**20


class Writer(threading.Thread):
    """Writes a small document again and again, and keeps how long each took."""

    def __init__(self, node):
        super().__init__()
        self.node, self.times, self.over = node, [], threading.Event()

    def run(self):
        number = 0
        while not self.over.is_set():
            start = time.perf_counter()
            document = {"id": "tick", "text": f"Tick {number}."}
            post(self.node, "/v1/tools/add_documents", {"collection": "ticks", "documents": [document]})
            self.times.append((start, time.perf_counter() - start))
            number += 1

    def slowest(self, since, until):
        """Milliseconds of the slowest write that was under way between two moments."""
        return max((took for start, took in self.times if start + took >= since and start <= until), default=0) * 1e3

    def usual_slowest(self, since, until, seconds):
        """The same for windows of so many seconds between two moments: the median of them."""
        windows = int((until - since) / seconds)
        return statistics.median(self.slowest(since + seconds * n, since + seconds * (n + 1)) for n in range(windows))

    def median(self, since, until):
        return statistics.median(took for start, took in self.times if since <= start and start + took <= until) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cairn", required=True, type=pathlib.Path)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--seals", type=int, default=40, help="snapshots that are taken while a client writes")
    parser.add_argument("--churn", type=int, default=20_000, help="passages that are written ten times; 0 for none")
    parser.add_argument("--busy", action="store_true", help="do not wait until the vector graph is linked")
    arguments = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        corpus, data = scratch / "corpus", scratch / "data"
        generate = [sys.executable, HERE / "corpus.py", corpus, "--files", str(arguments.passages // 10), "--queries", "10"]
        subprocess.run(generate, check=True)
        node = Node(arguments.cairn, data)
        run(arguments.cairn, data, "add", corpus / "docs", "-c", "bench")
        if not arguments.busy:
            node.settle()
        log = size(data / "log")
        rows["log"] = f"{log:,.0f} MiB, {arguments.passages:,} passages"

        writer = Writer(node)
        writer.start()
        quiet = time.perf_counter()
        time.sleep(10)
        before, began = blocks(scratch), time.perf_counter()
        taken, seconds = run(arguments.cairn, data, "snapshot", "create")
        ended = time.perf_counter()
        rows["snapshot"] = f"{seconds:.2f} s; {blocks(scratch) - before:,.1f} MiB more on the disk"
        # Each seals the segment, which is all that a writer can wait for.
        seals = []
        for _ in range(arguments.seals):
            start = time.perf_counter()
            post(node, "/v1/tools/create_snapshot", {})
            seals.append((start, time.perf_counter()))
            time.sleep(0.2)
        writer.over.set()
        writer.join()
        usual, worst = writer.median(quiet, began), writer.slowest(quiet, began)
        slowest = sorted(writer.slowest(*seal) for seal in seals)
        rows["a small write, nothing else going on"] = f"{usual:.1f} ms (median), {worst:.1f} ms (slowest in 10 s)"
        length = statistics.median(end - start for start, end in seals)
        rows["the slowest in as long a time as a snapshot takes, without one"] = f"{writer.usual_slowest(quiet, began, length):.1f} ms (median)"
        rows["the slowest while that snapshot was taken"] = f"{writer.slowest(began, ended):.1f} ms"
        rows[f"the slowest of {len(seals)} more snapshots each"] = f"{statistics.median(slowest):.1f} ms (median), {slowest[-1]:.1f} ms (slowest)"

        changed = corpus / "docs" / "changed"
        changed.mkdir()
        texts = [path for path in sorted((corpus / "docs").rglob("*.md"))][: max(1, arguments.passages // 1000)]
        for number, path in enumerate(texts):
            (changed / f"{number}.md").write_text(path.read_text() + "\n\nChanged.\n")
        grown = node.metric("cairn_log_bytes") if node.metric("cairn_log_bytes") else 0
        run(arguments.cairn, data, "add", changed, "-c", "bench", "--keep")
        grown = node.metric("cairn_log_bytes") - grown
        taken, seconds = run(arguments.cairn, data, "snapshot", "create")
        rows["the next one"] = f"{seconds:.2f} s; moves {taken['new_bytes'] / 2**20:,.2f} MiB for {grown / 2**20:,.2f} MiB that the log grew by"

        proof, seconds = run(arguments.cairn, data, "snapshot", "verify")
        rows["proof"] = f"{seconds:.1f} s ({proof['documents']:,} documents rebuilt, {proof['canaries']} questions)"
        node.stop()
        _, seconds = run(arguments.cairn, data, "snapshot", "restore", "--yes")
        rows["restore, node stopped"] = f"{seconds:.1f} s"
        node = Node(arguments.cairn, data)
        rows["start on the restored data"] = f"{node.start_seconds:.2f} s until ready"
        node.stop()

        if not arguments.churn:
            return show(rows)
        churned = scratch / "churned"
        node = Node(arguments.cairn, churned)
        texts = [path.read_text() for path in sorted((corpus / "docs").rglob("*.md"))[: arguments.churn // 10]]
        alive = 0
        for round_ in range(10):
            for start in range(0, len(texts), 50):
                documents = [
                    {"id": f"d{start + number}", "text": f"Round {round_}.\n\n{text}"} for number, text in enumerate(texts[start : start + 50])
                ]
                post(node, "/v1/tools/add_documents", {"collection": "churn", "documents": documents})
            alive = alive or node.metric("cairn_log_bytes") / 2**20
        post(node, "/v1/compact", {})
        after, written = node.metric("cairn_log_bytes") / 2**20, node.metric("cairn_compaction_bytes_total") / 2**20
        rows["ten rounds over the same documents"] = f"log {after:,.1f} MiB, {alive:,.1f} alive ({after / alive:.2f} ×); clearing out wrote {written:,.1f} MiB"
        rows["written by the process for that"] = f"{node.written():,.0f} MiB in all, indexes included"
        node.settle()
        # Upkeep that the writes left to do is over within a minute.
        time.sleep(60)
        before = node.written()
        time.sleep(60)
        rows["written in an idle minute"] = f"{node.written() - before:,.2f} MiB"
        node.stop()
    show(rows)


def show(rows):
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
