"""Measures Cairn beside what its users would otherwise install, on the same data in one run.

    make bench-peers                            100,000 passages; sets up its own virtual environment
    make bench-peers BENCH="--passages 20000"   a short one

Every figure is processor time (user and system) of whatever answers: a server's whole process group, or this process for a
library. Libraries that search for nearest neighbours get the same vectors and are read at the same recall@10; the servers get
the same passages with the same vectors, which for the peers are computed beforehand and not counted. Servers behind MCP get
words and embed them.
"""

import argparse
import concurrent.futures
import http.client
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import numpy

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

import bench  # noqa: E402
import stand_in  # noqa: E402

HITS = 10
CLIENTS = 8
PRESSED_SECONDS = 6
RECALLS = (0.90, 0.95, 0.98)


class Rows:
    def __init__(self, fixed):
        self.fixed, self.rows = fixed, []

    def add(self, part, what, **values):
        self.rows.append({"part": part, "what": what, **values, **self.fixed})
        shown = ", ".join(f"{key} {value:,.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items())
        print(f"{part}: {what}: {shown}", flush=True)

    def value(self, part, what, key):
        return next((row[key] for row in self.rows if (row["part"], row["what"]) == (part, what) and key in row), None)


# Libraries of nearest neighbours


def recall(found, truth):
    return sum(len(set(map(int, row)) & set(true)) for row, true in zip(found, truth)) / sum(map(len, truth))


def at(curve, wanted):
    """The cost at a recall, between the two measured points around it; None where it was not reached."""
    for (low, before), (high, after) in itertools.pairwise(sorted(curve)):
        if low <= wanted <= high:
            return before + (after - before) * (wanted - low) / max(high - low, 1e-9)
    return None


def curve(search, questions, truth, candidates):
    points = []
    for count in candidates:
        search(count, questions[:50])
        start = time.process_time()
        found = search(count, questions)
        points.append((recall(found, truth), (time.process_time() - start) / len(questions) * 1e6))
    return points


def hnswlib_curve(vectors, questions, truth, candidates):
    import hnswlib

    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=16, ef_construction=128)
    start = time.process_time()
    index.add_items(vectors, numpy.arange(len(vectors)))
    built = time.process_time() - start

    def search(count, asked):
        index.set_ef(count)
        return index.knn_query(asked, k=HITS, num_threads=1)[0]

    return curve(search, questions, truth, candidates), built


def faiss_curve(vectors, questions, truth, candidates):
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 128
    start = time.process_time()
    index.add(vectors)
    built = time.process_time() - start
    faiss.omp_set_num_threads(1)

    def search(count, asked):
        index.hnsw.efSearch = count
        # One at a time: a batch would be spread over threads or shared between questions.
        return numpy.concatenate([index.search(one[None], HITS)[1] for one in asked])

    return curve(search, questions, truth, candidates), built


def usearch_curve(kind):
    def measure(vectors, questions, truth, candidates):
        from usearch.index import Index

        index = Index(ndim=vectors.shape[1], metric="ip", dtype=kind, connectivity=16, expansion_add=128)
        start = time.process_time()
        index.add(numpy.arange(len(vectors)), vectors)
        built = time.process_time() - start

        def search(count, asked):
            index.expansion_search = count
            return index.search(asked, HITS, threads=1).keys

        return curve(search, questions, truth, candidates), built

    return measure


def lancedb_curve(vectors, questions, truth, candidates, scratch):
    import lancedb
    import pyarrow

    data = pyarrow.table(
        {
            "id": numpy.arange(len(vectors)),
            "vector": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), vectors.shape[1]),
        }
    )
    start = time.process_time()
    table = lancedb.connect(scratch / "lancedb").create_table("passages", data)
    table.create_index(metric="dot", vector_column_name="vector", index_type="IVF_HNSW_SQ", num_partitions=1)
    built = time.process_time() - start

    def search(count, asked):
        plan = lambda one: table.search(one).metric("dot").ef(count).nprobes(1).limit(HITS).select(["id"])  # noqa: E731
        return [plan(one).to_arrow()["id"].to_pylist() for one in asked[:300]] + [[] for _ in asked[300:]]

    # Dear enough that 300 questions tell.
    points = [
        (found * len(questions) / min(300, len(questions)), cost * len(questions) / min(300, len(questions)))
        for found, cost in curve(search, questions, truth, candidates)
    ]
    return points, built


def libraries(corpus, scratch, rows, arguments):
    candidates = (16, 24, 32, 48, 64, 96, 128, 192, 256)
    for dimensions in (256, 384):
        folder = scratch / f"vectors-{dimensions}"
        environment = {**os.environ, "CAIRN_BENCH_WRITE": str(folder)}
        if dimensions != 256:
            environment["CAIRN_BENCH_DIMENSIONS"] = str(dimensions)
        command = ["cargo", "bench", "--bench", "vectors", "--", corpus, str(arguments.passages)]
        told = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        ours = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
        curves = {"cairn": ([(row["recall"], row["us"]) for row in ours if row["what"] == "search"], None)}
        vectors, questions, truth = load(folder, dimensions)
        measures = {
            "hnswlib": hnswlib_curve,
            "faiss HNSWFlat": faiss_curve,
            "usearch f16": usearch_curve("f16"),
            "usearch i8": usearch_curve("i8"),
        }
        for name, measure in measures.items():
            curves[name] = measure(vectors, questions, truth, candidates)
        if dimensions == 256:
            curves["lancedb IVF_HNSW_SQ"] = lancedb_curve(vectors, questions, truth, (32, 64, 128), scratch)
        for name, (points, built) in curves.items():
            values = {f"us_at_{round(wanted * 100)}": at(points, wanted) for wanted in RECALLS}
            rows.add(f"nearest neighbours, {dimensions} dimensions", name, build_cpu_seconds=built, points=points, **values)


def load(folder, dimensions):
    vectors = numpy.fromfile(folder / "vectors.f32", dtype=numpy.float32).reshape(-1, dimensions)
    questions = numpy.fromfile(folder / "questions.f32", dtype=numpy.float32).reshape(-1, dimensions)
    return vectors, questions, json.loads((folder / "truth.json").read_text())


# Servers


def passages(corpus, count):
    """The passages in the order of their vectors."""
    found = []
    for path in sorted((corpus / "docs").rglob("*.md")):
        for section in path.read_text().split("\n## ")[1:]:
            found.append(section)
            if len(found) == count:
                return found
    return found


def group_cpu(process):
    """Seconds of processor that a process and its children have used."""
    total, wanted = 0.0, {process.pid}
    for stat in sorted(pathlib.Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        if pid in wanted or int(fields[1]) in wanted:
            wanted.add(pid)
            total += sum(map(int, fields[11:13])) / bench.TICK
    return total


class Client:
    """Connections that are kept, one a thread."""

    def __init__(self, url, headers):
        self.address, self.own = urllib.parse.urlsplit(url), threading.local()
        self.headers = {"Content-Type": "application/json", **headers}

    def post(self, body):
        if not hasattr(self.own, "connection"):
            self.own.connection = http.client.HTTPConnection(self.address.netloc, timeout=120)
        self.own.connection.request("POST", self.address.path, body, self.headers)
        answer = self.own.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            sys.exit(f"{self.address.path} answered {answer.status}: {text[:300]}")
        return json.loads(text)


def cost(cpu, calls, clients=CLIENTS):
    """Microseconds of `cpu`'s process for each call, and the answers, with as many calls at once as there are clients: a server
    that is woken for each call pays for that besides."""
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        before = cpu()
        answers = list(pool.map(lambda call: call(), calls))
    return (cpu() - before) / len(answers) * 1e6, answers


def pressed(cpu, url, bodies, headers, scratch):
    """The same with a client that costs next to nothing: all servers are asked as fast as they answer."""
    file = scratch / "bodies.jsonl"
    file.write_text("".join(body + "\n" for body in bodies))
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{PRESSED_SECONDS}s", "-s", HERE / "post.lua", url, "--", file]
    command += [part for header in headers.items() for part in header]
    before = cpu()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    used, text = cpu() - before, done.stdout + done.stderr
    if "first failure" in text or "Socket errors" in text:
        sys.exit(text)
    return used / int(re.search(r"(\d+) requests in", text)[1]) * 1e6


def cairn(binary, corpus, scratch, questions_text, rows, count):
    node = bench.Node(binary, scratch / "cairn")
    before = node.cpu()
    command = [binary, "add", corpus / "docs", "-c", "bench", "--data-dir", scratch / "cairn", "--json"]
    added = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    used = node.cpu() - before
    node.settle()
    rows.add(
        "ingest", "cairn, text to durable and searchable", us=used / added["passages"] * 1e6,
        us_with_graph=(node.cpu() - before) / added["passages"] * 1e6,
    )
    headers = {
        "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25",
    }
    client = Client(node.addresses["mcp"], headers)
    numbers = itertools.count()

    def body(text, **more):
        arguments = {"query": text, "limit": HITS, **more}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": arguments}}
        return json.dumps(call)

    def add(name, bodies):
        # All of them once before: what a node remembers of words is remembered, as in one that has run for a while.
        once = [line.replace("@@", f"a{next(numbers)}") for line in bodies]
        [client.post(line) for line in once]
        again = [line.replace("@@", f"b{next(numbers)}") for line in bodies]
        us, _ = cost(node.cpu, [lambda line=line: client.post(line) for line in again])
        us_pressed = pressed(node.cpu, node.addresses["mcp"], bodies, headers, scratch)
        rows.add("server", f"cairn over MCP, {name}", us=us, us_pressed=us_pressed)

    for name, more in (("hybrid", {}), ("dense", {"mode": "dense"}), ("dense, ids only", {"mode": "dense", "detail": "ids"})):
        add(f"{name}, words in", [body(f"{text} @@", **more) for text in questions_text])
    add("remembered", [body(questions_text[0])] * len(questions_text))
    node.stop()


def chroma(scratch, texts, vectors, questions, truth, rows):
    folder, port = scratch / "chroma", 18_123
    command = [pathlib.Path(sys.executable).parent / "chroma", "run", "--path", folder, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        import chromadb

        for _ in range(600):
            try:
                peer = chromadb.HttpClient(port=port)
                break
            except Exception:  # noqa: BLE001  the server is not up yet, and says so in several ways
                time.sleep(0.1)
        settings = {"hnsw": {"space": "ip", "max_neighbors": 16, "ef_construction": 128, "ef_search": 100}}
        collection = peer.create_collection("bench", configuration=settings, embedding_function=None)
        before = group_cpu(server)
        for start in range(0, len(texts), 1_000):
            part = slice(start, start + 1_000)
            ids = [str(number) for number in range(start, min(start + 1_000, len(texts)))]
            collection.add(ids=ids, embeddings=vectors[part], documents=texts[part])
        us = (group_cpu(server) - before) / len(texts) * 1e6
        rows.add("ingest", "chromadb server, vectors given", us=us)
        path = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{collection.id}/query"
        client = Client(f"http://127.0.0.1:{port}{path}", {})
        for name, include in (("ids and distances", ["distances"]), ("documents", ["distances", "documents"])):
            bodies = [
                json.dumps({"query_embeddings": [one.tolist()], "n_results": HITS, "include": include}) for one in questions
            ]
            [client.post(body) for body in bodies]
            cpu = lambda: group_cpu(server)  # noqa: E731
            us, answers = cost(cpu, [lambda body=body: client.post(body) for body in bodies])
            found = [answer["ids"][0] for answer in answers]
            us_pressed = pressed(cpu, f"http://127.0.0.1:{port}{path}", bodies, {}, scratch)
            rows.add(
                "server", f"chromadb server, {name}, vector in", us=us, us_pressed=us_pressed, recall=recall(found, truth)
            )
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


class Stdio:
    """An MCP server on standard input and output."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )
        self.numbers = itertools.count(1)
        self.request("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}})
        self.send({"method": "notifications/initialized"})

    def send(self, message):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def request(self, method, params):
        number = next(self.numbers)
        self.send({"id": number, "method": method, "params": params})
        while line := self.process.stdout.readline():
            # One of them greets on standard output.
            answer = json.loads(line) if line.startswith("{") else {}
            if answer.get("id") == number:
                if "error" in answer or answer["result"].get("isError"):
                    sys.exit(f"{method} failed: {line[:500]}")
                return answer["result"]
        sys.exit(f"{method}: the server ended")

    def cpu(self):
        return group_cpu(self.process)

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()


def behind_mcp(scratch, texts, vectors, questions_text, rows):
    environment = stand_in.install(scratch / "home", ROOT / "src/embed/static_minilm/vocab.txt")
    programs = pathlib.Path(sys.executable).parent

    import chromadb

    store = chromadb.PersistentClient(path=str(scratch / "chroma-mcp"))
    settings = {"hnsw": {"space": "ip", "max_neighbors": 16, "ef_construction": 128}}
    collection = store.create_collection("bench", configuration=settings)
    for start in range(0, len(texts), 1_000):
        part = slice(start, start + 1_000)
        ids = [str(number) for number in range(start, min(start + 1_000, len(texts)))]
        collection.add(ids=ids, embeddings=vectors[part], documents=texts[part])
    del collection, store
    command = [programs / "chroma-mcp", "--client-type", "persistent", "--data-dir", str(scratch / "chroma-mcp")]
    server = Stdio(command, environment)
    call = lambda text: lambda: server.request(  # noqa: E731
        "tools/call",
        {"name": "chroma_query_documents", "arguments": {"collection_name": "bench", "query_texts": [text], "n_results": HITS}},
    )
    [call(text)() for text in questions_text[:5]]
    us, _ = cost(server.cpu, [call(text) for text in questions_text[:60]], 1)
    rows.add("MCP server", f"chroma-mcp, {len(texts):,} passages", us=us)
    server.stop()

    from qdrant_client import QdrantClient, models

    store = QdrantClient(path=str(scratch / "qdrant"))
    name = "fast-all-minilm-l6-v2"
    store.create_collection(
        "bench", vectors_config={name: models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)}
    )
    for start in range(0, len(texts), 1_000):
        points = [
            models.PointStruct(id=number, vector={name: vectors[number].tolist()}, payload={"document": texts[number], "metadata": None})
            for number in range(start, min(start + 1_000, len(texts)))
        ]
        store.upsert("bench", points)
    store.close()
    command = [programs / "mcp-server-qdrant"]
    server = Stdio(command, {**environment, "QDRANT_LOCAL_PATH": str(scratch / "qdrant"), "COLLECTION_NAME": "bench"})
    call = lambda text: lambda: server.request("tools/call", {"name": "qdrant-find", "arguments": {"query": text}})  # noqa: E731
    [call(text)() for text in questions_text[:5]]
    us, _ = cost(server.cpu, [call(text) for text in questions_text[:200]], 1)
    rows.add("MCP server", f"mcp-server-qdrant, {len(texts):,} passages", us=us)
    server.stop()


def report(rows):
    print("\n| processor time, µs | " + " | ".join(f"recall {wanted}" for wanted in RECALLS) + " |\n|---|" + "---:|" * len(RECALLS))
    for row in rows.rows:
        if "points" in row:
            cells = [row[f"us_at_{round(wanted * 100)}"] for wanted in RECALLS]
            shown = " | ".join("" if cell is None else f"{cell:.0f}" for cell in cells)
            print(f"| {row['part']}: {row['what']} | {shown} |")
    print("\n| | µs CPU | asked as fast as it answers | recall@10 |\n|---|---:|---:|---:|")
    for row in rows.rows:
        if "us" in row:
            found = "" if "recall" not in row else f"{row['recall']:.3f}"
            fast = "" if "us_pressed" not in row else f"{row['us_pressed']:,.0f}"
            print(f"| {row['part']}: {row['what']} | {row['us']:,.0f} | {fast} | {found} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cairn", required=True, type=pathlib.Path)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--mcp-passages", type=int, default=20_000, help="for the peers' MCP servers")
    parser.add_argument("--questions", type=int, default=1_000)
    parser.add_argument("--scratch", required=True, type=pathlib.Path, help="folder that is used and left behind")
    parser.add_argument("--skip", default="", help="libraries,cairn,chroma,mcp")
    arguments = parser.parse_args()
    scratch, skip = arguments.scratch.resolve(), set(arguments.skip.split(","))
    scratch.mkdir(parents=True, exist_ok=True)
    corpus = scratch / "corpus"
    if not corpus.exists():
        command = [sys.executable, HERE.parent / "corpus.py", corpus, "--files", str(arguments.passages // 10), "--sections", "10"]
        subprocess.run(command, check=True)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    rows = Rows({"passages": arguments.passages, "cores": os.cpu_count(), "commit": commit})
    texts = passages(corpus, arguments.passages)
    questions_text = (corpus / "queries.txt").read_text().splitlines()[: arguments.questions]
    if "libraries" not in skip:
        libraries(corpus, scratch, rows, arguments)
    if "cairn" not in skip:
        cairn(arguments.cairn.resolve(), corpus, scratch, questions_text, rows, len(texts))
    if "chroma" not in skip:
        chroma(scratch, texts, *load(scratch / "vectors-256", 256), rows)
    if "mcp" not in skip:
        count = min(arguments.mcp_passages, len(texts))
        vectors, _, _ = load(scratch / "vectors-384", 384)
        behind_mcp(scratch, texts[:count], vectors[:count], questions_text, rows)
    report(rows)
    (scratch / "peers.json").write_text(json.dumps(rows.rows, indent=1))


if __name__ == "__main__":
    main()
