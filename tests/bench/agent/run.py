"""Measures what an agent reads until it has the answer: with Cairn's tools over MCP, and with grep on the same files.

    make bench-agent
    python3 tests/bench/agent/run.py --cairn BINARY --scratch DIR [--data DIR] [--json FILE] [--verbose]

Each question has a page and a heading that answer it. What both agents do is written down here and knows nothing of either:

* With Cairn: `search` with the question as it is and default arguments, then `fetch` of the hits in their order, five at most.
  A section that has been read is not fetched again. Every character that a client hands to its model counts: all of a result's
  content blocks, or its structured content where that is longer.
* With grep: keywords of the question, the most telling first; the two first in one line, then fewer and others; of each output
  100 lines and 10,000 characters at most; then 60 lines around the best line of the best file, five times at most.

Either has its answer when it has read a line of the section under the right heading of the right page. Seeing the heading in a
list of results is not enough. What was in vain counts too: of questions that were given up, everything that was read.

Besides, of one default search: whether the right heading is among its results, and how long it is.
"""

import argparse
import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import urllib.request

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(HERE.parent))

import bench  # noqa: E402

PROTOCOL = "2025-11-25"
READS = 5
# Of what was tried with grep, these read the most answers: more or fewer words, look-ups, reads, lines, and shorter windows. The
# most frugal read 12,000 characters a question, and three to six answers in a hundred less.
READS_PER_LOOK_UP = 2
LOOK_UPS = 8
OUTPUT_LINES = 100
OUTPUT_CHARACTERS = 10_000
LINE_CHARACTERS = 300
WINDOW_BEFORE, WINDOW_AFTER = 10, 49


def plain(text):
    """A heading or line as people see it: without marks of Markdown, in small letters."""
    return " ".join(re.sub(r"[`*_\\#]|\{[^}]*\}", " ", text).lower().split())


class Pages:
    """The pages of a folder, and which lines stand under a heading."""

    def __init__(self, folder):
        self.folder = folder
        self.lines = {
            str(path.relative_to(folder)): path.read_text(errors="replace").split("\n")
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.suffix in (".md", ".mdx")
        }

    def section(self, page, heading):
        """Numbers of the lines of the section, from its heading to the next of the same level; line 0 is the first."""
        lines, wanted, fenced, start, level = self.lines[page], plain(heading), False, None, 0
        for number, line in enumerate(lines):
            if line.lstrip().startswith("```"):
                fenced = not fenced
            found = None if fenced else re.match(r"(#+)\s+(.*)", line)
            if found and start is not None and len(found[1]) <= level:
                return range(start, number)
            # What looks like a heading and is none in Markdown, such as a bold line, ends at the next heading.
            alike = not fenced and re.match(r"(title|:::\w+|<summary>)?:?\s*[\"'*]*(.*?)([\"'*]*$|\*\*)", line)
            alike = bool(alike) and plain(alike[2]) == wanted
            if start is None and (found and plain(found[2]) == wanted or alike):
                start = number
                level = len(found[1]) if found else 0 if line.startswith("title:") else 6
        if start is not None:
            return range(start, len(lines))
        sys.exit(f"{page}: there is no heading '{heading}'")


class Question:
    def __init__(self, text, answers, pages):
        self.text = text
        self.headings = [(page, plain(heading)) for page, heading in answers]
        self.sections = [(page, pages.section(page, heading)) for page, heading in answers]
        # Lines that tell the section from the rest of its page.
        self.telling = {}
        for page, section in self.sections:
            lines = [plain(line) for line in pages.lines[page]]
            own = {lines[number] for number in section if len(lines[number]) >= 25 and lines.count(lines[number]) == 1}
            self.telling.setdefault(page, set()).update(own | {lines[section.start]})

    def is_read(self, page, text):
        """Whether a text of a page has a line of the section. Lines may be joined to paragraphs in it."""
        shown = plain(text)
        return any(line in shown for line in self.telling.get(page, ()))


# With Cairn


class Client:
    """An MCP client over HTTP, of the released protocol."""

    def __init__(self, url):
        self.url, self.headers, self.next = url, {}, 0
        self.call("initialize", {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": {"name": "agent", "version": "1"}})
        self.headers["MCP-Protocol-Version"] = PROTOCOL
        self.call("notifications/initialized", {}, is_request=False)

    def call(self, method, parameters, is_request=True):
        self.next += 1
        message = {"jsonrpc": "2.0", "method": method, "params": parameters} | ({"id": self.next} if is_request else {})
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **self.headers}
        with urllib.request.urlopen(urllib.request.Request(self.url, json.dumps(message).encode(), headers)) as answer:
            if session := answer.headers.get("Mcp-Session-Id"):
                self.headers["Mcp-Session-Id"] = session
            body = answer.read().decode()
        if not is_request:
            return None
        if body.lstrip().startswith(("event:", "data:", ":", "id:")):
            body = [line[5:] for line in body.split("\n") if line.startswith("data:")][-1]
        return json.loads(body)["result"]

    def tool(self, name, arguments):
        """What a tool answers, and the characters that a model gets of it."""
        result = self.call("tools/call", {"name": name, "arguments": arguments})
        blocks = sum(len(block["text"] if block["type"] == "text" else shown(block)) for block in result["content"])
        structured = result.get("structuredContent")
        if result.get("isError"):
            return {}, blocks
        if structured is None:
            structured = readable(result["content"])
        return structured, max(blocks, len(shown(structured)) if "structuredContent" in result else 0)


def shown(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def readable(blocks):
    for block in blocks:
        with contextlib.suppress(KeyError, ValueError):
            return json.loads(block["text"])
    return {}


class Hit:
    """A result of a search. Only its id has to be there; the rest is as lean or as rich as the answer was."""

    def __init__(self, result):
        self.id = result["id"]
        whole, _, self.passage = self.id.partition("#")
        self.collection, _, document = whole.partition("/")
        self.document = result.get("document", document)
        headings = result.get("headings") or []
        path = [result.get("title", ""), *headings, result.get("heading", "") or ""]
        # A heading path is one text with marks between its parts, or a list.
        self.headings = {plain(part) for text in path for part in [text, *re.split(r" [›>] ", text)] if part}
        self.text = result.get("text", "")
        self.headings |= {plain(line) for line in self.text.split("\n") if line.startswith("#")}


def is_page(hit, page, folder):
    return hit.collection == folder and (hit.document == page or hit.document.endswith("/" + page))


def with_cairn(client, question, folder):
    """Characters read, whether the answer was, calls; and of the search whether the heading was there and its characters."""
    answer, characters = client.tool("search", {"query": question.text})
    hits = [Hit(result) for result in answer.get("results", [])]
    is_there = any(
        is_page(hit, page, folder) and (heading in hit.headings or question.is_read(page, hit.text))
        for hit in hits
        for page, heading in question.headings
    )
    searched, calls, read = characters, 1, []
    for hit in hits:
        if calls > READS:
            break
        if any(hit.document == document and plain(hit.text) in text for document, text in read):
            continue
        section, more = client.tool("fetch", {"id": hit.id})
        characters, calls = characters + more, calls + 1
        text = section.get("text", "")
        read.append((hit.document, plain(text)))
        for page, _ in question.headings:
            # A lean answer may leave the heading's own line to the title.
            path = "\n".join([section.get("title", ""), *(section.get("headings") or []), text])
            if is_page(hit, page, folder) and question.is_read(page, path):
                return characters, True, calls, is_there, searched
    return characters, False, calls, is_there, searched


# With grep

STOP = set(
    """a about after again all also am an and any are as at be because been before being between both but by can could did do does
    doing done down during each every few for from further get gets give go goes good had has have having he her here how i if in
    into is it its itself just keep kind let lets like long make many may me mean means might more most much must my need needs
    never no nor not now of off on once one only or other our out over own please put same she should so some still such take
    than that the their them then there these they thing this those through time to too under until up us use used using very
    want wants was way we were what when where which while who whom why will with within without work works would yet you your
    happen happens possible difference different become show someone somebody people person users user""".split()
)


def keywords(question):
    """The words of a question that say what it is about, the most telling first: names and identifiers, then long words."""
    found = {}
    for word in re.findall(r"[\w][\w.'/:-]*[\w]|\w\w+", question):
        if word.lower() in STOP or len(word) < 3:
            continue
        is_name = bool(re.search(r"[\d_.:/-]|[a-z][A-Z]|^[A-Z]{2,}", word))
        found.setdefault(word.lower(), (not is_name, -len(word)))
    return [stem(word) for word, _ in sorted(found.items(), key=lambda item: item[1])]


def stem(word):
    """As much of a word as its other forms have too."""
    for ending in ("ations", "ation", "ings", "ing", "ers", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def patterns(words):
    """What is looked for, one after the other: two words in one line, then one of them, then any."""
    pairs = [(one, other) for place, one in enumerate(words[:4]) for other in words[place + 1 : 4]]
    pairs.sort(key=lambda pair: words.index(pair[0]) + words.index(pair[1]))
    for one, other in pairs:
        yield f"{re.escape(one)}.*{re.escape(other)}|{re.escape(other)}.*{re.escape(one)}"
    yield from map(re.escape, words[:4])


class Grep:
    """An agent that has a folder, grep, and a way to read lines of a file."""

    def __init__(self, pages):
        self.pages, self.characters, self.calls = pages, 0, 0

    def look_up(self, pattern):
        """Lines of files that match, as many as an agent is shown."""
        command = ["grep", "-rniE", "--include=*.md", "--include=*.mdx", "-e", pattern, "."]
        output = subprocess.run(command, cwd=self.pages.folder, capture_output=True, text=True, errors="replace").stdout
        lines = [line.removeprefix("./")[:LINE_CHARACTERS] for line in sorted(output.splitlines())]
        text = "\n".join(lines[:OUTPUT_LINES])[:OUTPUT_CHARACTERS]
        self.calls, self.characters = self.calls + 1, self.characters + len(text)
        found = {}
        for line in text.split("\n"):
            # The last one may be cut.
            if match := re.match(r"([^:]+):(\d+):(.*)", line):
                found[match[1], int(match[2]) - 1] = match[3]
        return found

    def read(self, page, number):
        start = max(0, number - WINDOW_BEFORE)
        text = "\n".join(self.pages.lines[page][start : number + WINDOW_AFTER + 1])
        self.calls, self.characters = self.calls + 1, self.characters + len(text)
        return text


def with_grep(pages, question):
    """Characters read, whether the answer was, calls."""
    agent, words, reads = Grep(pages), keywords(question.text), 0
    seen, read = {}, set()

    def held(text):
        return {word for word in words if word in text.lower()}

    for pattern in itertools.islice(patterns(words), LOOK_UPS):
        fresh = agent.look_up(pattern)
        seen.update(fresh)
        in_page = {}
        for (page, line), text in seen.items():
            in_page.setdefault(page, set()).update(held(text) | held(page))

        def worth(place):
            page, line = place
            text = seen[place]
            is_heading = text.lstrip().startswith("#")
            return (len(held(text)) + len(held(page)) + 2 * is_heading + len(in_page[page]), place in fresh, place)

        for page, line in sorted(seen, key=worth, reverse=True)[:READS_PER_LOOK_UP] if fresh else []:
            if (page, line) in read:
                continue
            text = agent.read(page, line)
            reads += 1
            read.update((page, near) for near in range(line - WINDOW_BEFORE, line + WINDOW_AFTER + 1))
            if question.is_read(page, text):
                return agent.characters, True, agent.calls
            if reads == READS:
                return agent.characters, False, agent.calls
    return agent.characters, False, agent.calls


# Questions, folders, figures


def own_questions(pages):
    questions = []
    for line in (HERE / "questions.jsonl").read_text().splitlines():
        item = json.loads(line)
        answers = [(item["page"], item["heading"]), *((more["page"], more["heading"]) for more in item.get("also", []))]
        questions.append(Question(item["question"], answers, pages))
    return questions


def judged_questions(folder, pages):
    """Questions of a collection whose answers.jsonl names page and heading."""
    lines = lambda name: map(json.loads, (folder / name).read_text().splitlines())
    answers = {}
    for item in lines("answers.jsonl"):
        answers.setdefault(item["query_id"], []).append((item["page"], item["heading"]))
    return [Question(item["text"], answers[item["_id"]], pages) for item in lines("queries.jsonl") if item["_id"] in answers]


def fetch_documents(scratch):
    """The documentation that questions.jsonl is about, as the package index has it."""
    kept = scratch / "downloads"
    if not list(kept.glob("*.tar.gz")):
        kept.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:"]
        command += ["--require-hashes", "-r", HERE / "documents.txt", "-d", kept]
        if subprocess.run(command).returncode:
            sys.exit("the documents of tests/bench/agent/documents.txt are missing and PyPI could not be reached to fetch them")
    folder = scratch / "folders" / "jupyterhub"
    [archive] = kept.glob("*.tar.gz")
    with tarfile.open(archive) as members:
        for member in members:
            path = pathlib.PurePath(member.name)
            if member.isfile() and path.suffix == ".md" and path.parts[1:3] == ("docs", "source"):
                place = folder.joinpath(*path.parts[3:])
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(members.extractfile(member).read())
    return folder


class Node:
    """A node that has some folders, each as the collection of its name."""

    def __init__(self, binary, scratch, folders):
        data = scratch / ("data-" + "-".join(folder.name for folder in folders))
        self.node = bench.Node(binary, data)
        for folder in folders:
            command = [binary, "add", folder, "-c", folder.name, "--data-dir", data, "--json"]
            subprocess.run(command, check=True, capture_output=True)
        self.node.settle()
        self.client = Client(self.node.addresses["mcp"])

    def stop(self):
        self.node.stop()


def measure(name, questions, pages, client, grep_pages, verbose):
    cairn = [with_cairn(client, question, pages.folder.name) for question in questions]
    grep = [with_grep(grep_pages or pages, prefixed(question, pages.folder.name) if grep_pages else question) for question in questions]
    if verbose:
        for question, one, other in zip(questions, cairn, grep):
            print(f"{one[0]:>7} {'+' if one[1] else '-'} {one[2]}  {other[0]:>7} {'+' if other[1] else '-'} {other[2]}  {'+' if one[3] else '-'} {question.text}", file=sys.stderr)
    count = len(questions)
    share = lambda results, place: sum(result[place] for result in results) / count
    return {
        "what": name,
        "questions": count,
        "cairn_characters": round(share(cairn, 0)),
        "cairn_found": share(cairn, 1),
        "cairn_calls": share(cairn, 2),
        "grep_characters": round(share(grep, 0)),
        "grep_found": share(grep, 1),
        "grep_calls": share(grep, 2),
        "heading_in_results": share(cairn, 3),
        "search_median": round(statistics.median(result[4] for result in cairn)),
        "search_max": max(result[4] for result in cairn),
    }


def prefixed(question, folder):
    """The question about a folder's pages, as one about those of the folder around it."""
    other = object.__new__(Question)
    other.text = question.text
    other.telling = {f"{folder}/{page}": lines for page, lines in question.telling.items()}
    return other


def show(rows):
    print("| questions | | characters until read: Cairn | grep | Cairn ÷ grep | read: Cairn | grep | calls: Cairn | grep | heading in one search | its characters, median / max |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        ratio = row["cairn_characters"] / max(row["grep_characters"], 1)
        print(
            f"| {row['what']} | {row['questions']} | {row['cairn_characters']:,} | {row['grep_characters']:,} | {ratio:.2f} "
            f"| {row['cairn_found']:.0%} | {row['grep_found']:.0%} | {row['cairn_calls']:.1f} | {row['grep_calls']:.1f} "
            f"| {row['heading_in_results']:.0%} | {row['search_median']:,} / {row['search_max']:,} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cairn", required=True, type=pathlib.Path)
    parser.add_argument("--scratch", required=True, type=pathlib.Path, help="folder for documents and data")
    parser.add_argument("--data", type=pathlib.Path, default=os.environ.get("CAIRN_EVAL_DATA") or None, help="folder of the judged collections, which has k3s-docs")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--verbose", action="store_true", help="a line for each question: characters, whether it was read, calls, with Cairn and with grep")
    arguments = parser.parse_args()
    binary, scratch = arguments.cairn.resolve(), arguments.scratch.resolve()
    for stale in [scratch / "folders", *scratch.glob("data-*")]:
        shutil.rmtree(stale, ignore_errors=True)
    hub = fetch_documents(scratch)
    manual = scratch / "folders" / "manual"
    shutil.copytree(ROOT / "docs", manual)
    folders, rows = [hub, manual], []
    judged = pathlib.Path(arguments.data) / "k3s-docs" if arguments.data else None
    if judged:
        k3s = scratch / "folders" / "k3s-docs"
        shutil.copytree(judged / "docs", k3s)
        folders.append(k3s)
    else:
        print("CAIRN_EVAL_DATA does not name the folder of judged collections: k3s-docs is left out", file=sys.stderr)
    sets = {hub: own_questions(Pages(hub))}
    if judged:
        sets[k3s] = judged_questions(judged, Pages(k3s))
    for folder, questions in sets.items():
        node = Node(binary, scratch, [folder])
        rows.append(measure(f"{folder.name}, alone", questions, Pages(folder), node.client, None, arguments.verbose))
        node.stop()
    node, everything = Node(binary, scratch, folders), Pages(scratch / "folders")
    for folder, questions in sets.items():
        name = f"{folder.name}, beside {len(folders) - 1} others"
        rows.append(measure(name, questions, Pages(folder), node.client, everything, arguments.verbose))
    node.stop()
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
