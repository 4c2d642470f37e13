"""Measures a node as its users feel it, and prints one table.

    make bench                 the whole of it: 100,000 passages, about ten minutes
    python3 tests/bench/bench.py --cairn BINARY [--passages 10000] [--json FILE] [--skip overload,start,search,loading,idle]

CPU times are the node process's own (user and system, from /proc), so that they hold on a busy machine; wall times
are given beside them. Corpus and questions are generated and the same for each seed.
"""

import argparse
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")


class Node:
    def __init__(self, binary, data):
        start = time.perf_counter()
        command = [binary, "--json", "serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{binary} did not start; run `{' '.join(map(str, command))}` to see why")
        self.addresses = json.loads(line)
        while self.ready() != 200:
            time.sleep(0.002)
        self.start_seconds = time.perf_counter() - start

    def ready(self):
        try:
            return urllib.request.urlopen(self.addresses["admin"] + "/ready").status
        except urllib.error.HTTPError as error:
            return error.code

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self, field):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) / 1024

    def written(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/io").read_text()
        return int(re.search(r"^write_bytes: (\d+)", text, re.M)[1]) / 2**20

    def metric(self, name):
        text = urllib.request.urlopen(self.addresses["admin"] + "/metrics").read().decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))

    def settle(self):
        """Until the graph is linked and nothing has been used for three seconds."""
        quiet = 0
        while quiet < 3 or self.metric("cairn_passages_unlinked"):
            before = self.cpu()
            time.sleep(1)
            quiet = quiet + 1 if self.cpu() - before < 0.05 else 0

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def size(directory):
    return sum(path.stat().st_size for path in pathlib.Path(directory).rglob("*") if path.is_file()) / 2**20


def ingest(binary, node, data, corpus, rows):
    passages = None
    cpu, start = node.cpu(), time.perf_counter()
    command = [binary, "add", corpus / "docs", "-c", "bench", "--data-dir", data, "--json"]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    seconds, used = time.perf_counter() - start, node.cpu() - cpu
    passages = answer["passages"]
    peak = node.memory("VmHWM")
    rows["ingest, durable and searchable"] = f"{passages / seconds:,.0f} passages/s ({seconds:.1f} s for {passages:,})"
    rows["ingest, node CPU"] = f"{used / passages * 1e6:,.0f} µs a passage, {passages / used:,.0f} passages/s a core (graph built meanwhile included)"
    node.settle()
    total = node.cpu() - cpu
    rows["graph, segments and checkpoint included"] = f"{total / passages * 1e6:,.0f} µs CPU a passage"
    rows["peak memory"] = f"{peak:,.0f} MiB"
    rows["written"] = f"{node.written():,.0f} MiB for {size(corpus / 'docs'):,.0f} MiB of text; {size(data):,.0f} MiB on disk"
    return passages


def ask(node, corpus, clients, seconds, era, kind, *options):
    """What wrk tells of searches from `clients` connections, and the node's seconds of processor meanwhile."""
    cpu = node.cpu()
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", HERE / "search.lua"]
    command += [node.addresses["mcp"], "--", corpus / "queries.txt", era, kind, *map(str, options)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr, node.cpu() - cpu


def searches(node, corpus, era, kind, clients, seconds, rows):
    text, used = ask(node, corpus, clients, seconds, era, kind)
    if "first failure" in text or "Non-2xx" in text:
        sys.exit(text)
    calls = int(re.search(r"(\d+) requests in", text)[1])
    rate = float(re.search(r"Requests/sec:\s+(\S+)", text)[1])
    p50, p99 = (re.search(rf"^\s+{part}%\s+(\S+)", text, re.M)[1] for part in (50, 99))
    used *= 1e6 / calls
    rows[f"search, {kind}, {era}, {clients} clients"] = (
        f"{used:.0f} µs CPU a call, {rate:,.0f} calls/s, p50 {p50}, p99 {p99}"
    )


def search(node, corpus, seconds, rows):
    for era in ("modern", "legacy"):
        for kind in ("uncached", "cached"):
            for clients in (1, 16, 64):
                searches(node, corpus, era, kind, clients, seconds, rows)


def wrk(node, corpus, clients, seconds, *options):
    """What `clients` connections got: answers and refusals a second, and the node's share of a processor."""
    text, used = ask(node, corpus, clients, seconds, "modern", "uncached", *options)
    calls = int(re.search(r"(\d+) requests in", text)[1])
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    refused = int(refused[1]) if refused else 0
    return (calls - refused) / seconds, refused / seconds, used / seconds


class Probe(threading.Thread):
    """Asks a hundred times a second and notes how long answers and refusals took, in milliseconds."""

    def __init__(self, node):
        super().__init__()
        self.address, self.is_over, self.times = urllib.parse.urlsplit(node.addresses["mcp"]), False, {}

    def run(self):
        connection = http.client.HTTPConnection(self.address.netloc)
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-11-25",
        }
        number = 0
        while not self.is_over:
            number += 1
            arguments = {"query": f"which pump hums {number}"}
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": arguments}}
            start = time.perf_counter()
            connection.request("POST", self.address.path, json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            self.times.setdefault(answer.status, []).append((time.perf_counter() - start) * 1e3)
            time.sleep(0.01)


def overload(binary, data, corpus, seconds, rows):
    """Four times as many searches as the node answers. The node has one processor to itself and the clients another: what
    they take must not count against it."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        rows["overload"] = "left out: it takes two processors"
        return
    os.sched_setaffinity(0, allowed[:1])
    node = Node(binary, data)
    os.sched_setaffinity(0, allowed[1:2])
    node.settle()
    wrk(node, corpus, 16, 2)
    peak, _, _ = wrk(node, corpus, 16, seconds)
    before, connections = node.memory("VmRSS"), 2_000
    probe = Probe(node)
    probe.start()
    good, refused, cpu = wrk(node, corpus, connections, seconds, int(connections / (4 * peak) * 1e3) - 10)
    probe.is_over = True
    probe.join()
    times = sorted(probe.times.get(503, [0.0]))
    rows["overload, one processor"] = (
        f"peak {peak:,.0f}/s; of {good + refused:,.0f}/s ({(good + refused) / peak:.1f} times that) {good:,.0f}/s answered "
        f"({good / peak * 100:.0f} %), {refused:,.0f}/s refused within p50 {times[len(times) // 2]:.2f} ms, most {times[-1]:.2f} ms "
        f"({len(times)} seen); memory {before:,.0f} → {node.memory('VmRSS'):,.0f} MiB"
    )
    node.stop()
    os.sched_setaffinity(0, allowed)


def latency(node, corpus, seconds):
    """Median and 99th percentile of a search in milliseconds, with 400 a second from eight clients."""
    text, _ = ask(node, corpus, 8, seconds, "modern", "uncached", 20)
    told = [re.search(rf"^\s+{part}%\s+([\d.]+)(us|ms|s)$", text, re.M) for part in (50, 99)]
    return [float(value[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[value[2]] for value in told]


def loading(binary, data, corpus, scratch, files, seconds, rows):
    """What searches feel of a bulk load into the collection that they search, on the same processors."""
    more = scratch / "more"
    command = [sys.executable, HERE / "corpus.py", more, "--files", str(files), "--seed", "8"]
    subprocess.run(command, check=True)
    # A folder of another name: its documents are added to those that are there.
    (more / "docs").rename(more / "added")
    node = Node(binary, data)
    node.settle()
    latency(node, corpus, 3)
    before = latency(node, corpus, seconds)
    command = [binary, "add", more / "added", "-c", "bench", "--data-dir", data, "--json"]
    add = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    written = node.metric("cairn_passages_written_total")
    during = latency(node, corpus, seconds)
    rate = (node.metric("cairn_passages_written_total") - written) / seconds
    was_long_enough = add.poll() is None
    add.wait()
    rows["search while documents are added to its collection"] = (
        f"p50 {before[0]:.2f} → {during[0]:.2f} ms, p99 {before[1]:.2f} → {during[1]:.2f} ms ({during[1] / before[1]:.1f} times), "
        f"{rate:,.0f} passages/s added meanwhile" + ("" if was_long_enough else "; the load was over too soon")
    )
    node.stop()


def starts(binary, data, label, rows, memory=False):
    times, node = [], None
    for _ in range(5):
        node = Node(binary, data)
        times.append(node.start_seconds * 1e3)
        if memory:
            rows[f"memory, {label}"] = f"{node.memory('VmRSS'):.0f} MiB"
        node.stop()
    rows[f"start to ready, {label}"] = f"{statistics.median(times):.0f} ms (median of 5)"


def idle(node, seconds, rows):
    cpu, written = node.cpu(), node.written()
    time.sleep(seconds)
    rows[f"idle, {seconds} s"] = f"{(node.cpu() - cpu) / seconds * 100:.3f} % CPU, {node.written() - written:.2f} MiB written"


def recall(node, passages):
    """Part of the ten nearest that searches find: 1 where all are compared, "-" where nobody has looked yet."""
    if passages <= 20_000:
        return 1.0
    return round(node.metric("cairn_vector_recall"), 3) or "-"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cairn", required=True, type=pathlib.Path)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=6, help="a round of searches")
    parser.add_argument("--idle", type=int, default=60)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--skip", default="")
    arguments = parser.parse_args()
    skip = set(arguments.skip.split(","))
    binary = arguments.cairn.resolve()
    if not shutil.which("wrk") and "search" not in skip:
        sys.exit("wrk is missing: apt-get install wrk")
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        command = [sys.executable, HERE / "corpus.py", scratch / "corpus", "--files", str(arguments.passages // 10)]
        subprocess.run(command, check=True)
        corpus, data = scratch / "corpus", scratch / "data"
        if "start" not in skip:
            starts(binary, scratch / "empty", "empty", rows, memory=True)
        node = Node(binary, data)
        passages = ingest(binary, node, data, corpus, rows)
        if "search" not in skip:
            search(node, corpus, arguments.seconds, rows)
        found = recall(node, passages)
        node.stop()
        if "overload" not in skip:
            overload(binary, data, corpus, arguments.seconds, rows)
        if "start" not in skip:
            starts(binary, data, f"{passages:,} passages", rows, memory=True)
        if "loading" not in skip:
            loading(binary, data, corpus, scratch, max(arguments.passages // 10, 8_000), arguments.seconds, rows)
        if "idle" not in skip:
            node = Node(binary, data)
            time.sleep(5)
            idle(node, arguments.idle, rows)
            node.stop()
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    rows["machine"] = f"{os.cpu_count()} cores, {model}"
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    # In each row, so that rows of several runs can be put together.
    where = {"passages": passages, "dimensions": 256, "recall_at_10": found, "cores": os.cpu_count(), "commit": commit}
    width = max(map(len, rows))
    print(f"| {'what'.ljust(width)} | measured | {' | '.join(where)} |\n|{'-' * (width + 2)}|---|{'---|' * len(where)}")
    for name, value in rows.items():
        print(f"| {name.ljust(width)} | {value} | {' | '.join(map(str, where.values()))} |")
    if arguments.json:
        table = [{"what": name, "measured": value, **where} for name, value in rows.items()]
        arguments.json.write_text(json.dumps(table, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
