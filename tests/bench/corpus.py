"""A generated documentation tree. The same seed and input give the same bytes.

With CAIRN_EVAL_DATA set, passages are real ones: each keeps most sentences of a passage of those collections and takes the
others from its neighbours, and the questions are the collections' own. Without it, passages are made of real English
words with Zipf frequencies and topics: their vectors lie closer together than those of real text.

    python3 tests/bench/corpus.py DIR --files 10000 [--sections 10] [--words 120] [--queries 2000]

DIR/docs/NNN/*.md are the files: each section is one passage. Their metadata has a `draw`, a whole number below 10,000 by chance, so that
`{"draw": {"lt": 100}}` admits one per cent. DIR/queries.txt holds questions made of words that stand together in some section, with
the small words that people write between them.
"""

import argparse
import json
import os
import pathlib
import random
import re

VOCABULARY = pathlib.Path(__file__).parents[2] / "src/embed/static_minilm/vocab.txt"
GLUE = "the of to and in a is for that with on as by it from are be this or an at which".split()


def zipf(words, exponent):
    total, weights = 0.0, []
    for rank in range(1, len(words) + 1):
        total += 1.0 / rank**exponent
        weights.append(total)
    return weights


def real(root, random_, arguments):
    """Passages and questions of the collections below `root`, the passages recombined by sentence."""
    groups, queries = [], []
    for collection in sorted(path for path in root.iterdir() if (path / "corpus.jsonl").is_file()):
        if collection.name.startswith("xquad"):
            continue
        texts = [json.loads(line) for line in (collection / "corpus.jsonl").open()]
        for start in range(0, len(texts), 25):
            groups.append([(text["title"] or "Untitled", re.split(r"(?<=[.?!]) ", text["text"])) for text in texts[start : start + 25]])
        queries += [json.loads(line)["text"] for line in (collection / "queries.jsonl").open()]
    random_.shuffle(queries)
    count = arguments.files * arguments.sections
    passages = [(group, passage) for group in groups for passage in group]
    for number in range(count):
        group, (title, sentences) = passages[number % len(passages)]
        kept = [sentence for sentence in sentences if random_.random() < 0.7] or sentences[:1]
        other = random_.choice(random_.choice(groups) if random_.random() < 0.3 else group)[1]
        kept += random_.sample(other, min(len(other), 2))
        random_.shuffle(kept)
        yield title.strip(" ."), " ".join(kept)[:850]
    yield None, queries[: arguments.queries]


def front_matter(file):
    return ["---", f"draw: {random.Random(file).randrange(10_000)}", "---", ""]


def write_real(root, random_, arguments):
    made = real(root, random_, arguments)
    order = list(range(arguments.files * arguments.sections))
    random_.shuffle(order)
    passages = [next(made) for _ in order]
    for file in range(arguments.files):
        chosen = [passages[position] for position in order[file * arguments.sections : (file + 1) * arguments.sections]]
        lines = [*front_matter(file), f"# Notes {file}", ""]
        for title, text in chosen:
            lines += [f"## {title}", "", text, ""]
        folder = arguments.directory / "docs" / f"{file // 100:04}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"page-{file:06}.md").write_text("\n".join(lines))
    queries = next(made)[1]
    (arguments.directory / "queries.txt").write_text("\n".join(query.replace("\n", " ") for query in queries) + "\n")
    print(f"{arguments.files} files, {len(order)} sections, {len(queries)} queries, from real passages")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--sections", type=int, default=10)
    parser.add_argument("--words", type=int, default=120)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()

    random_ = random.Random(arguments.seed)
    if os.environ.get("CAIRN_EVAL_DATA"):
        return write_real(pathlib.Path(os.environ["CAIRN_EVAL_DATA"]), random_, arguments)
    words = VOCABULARY.read_text().splitlines()
    words = [word for word in words if word.isalpha() and word.isascii() and len(word) > 2 and word not in GLUE]
    common = words[:3_000]
    common_weights = zipf(common, 0.9)
    topics = []
    for _ in range(500):
        topic = random_.sample(words[500:], 150)
        topics.append((topic, zipf(topic, 0.7)))

    def section(topic):
        own, weights = topic
        text = []
        for word in random_.choices(own, cum_weights=weights, k=arguments.words * 2 // 5):
            text.append(word)
        text += random_.choices(common, cum_weights=common_weights, k=arguments.words // 3)
        text += random_.choices(GLUE, k=arguments.words - len(text))
        random_.shuffle(text)
        sentences = [text[start : start + 15] for start in range(0, len(text), 15)]
        return [" ".join(sentence).capitalize() + "." for sentence in sentences]

    queries, every = [], max(1, arguments.files * arguments.sections // arguments.queries)
    number = 0
    for file in range(arguments.files):
        topic = random_.choice(topics)
        title = " ".join(random_.sample(topic[0], 3)).title()
        lines = [*front_matter(file), f"# {title}", ""]
        for _ in range(arguments.sections):
            sentences = section(topic)
            heading = " ".join(random_.sample(topic[0], 2)).capitalize()
            lines += [f"## {heading}", "", " ".join(sentences), ""]
            number += 1
            if number % every == 0:
                found = [word for word in random_.choice(sentences).lower().strip(".").split() if word not in GLUE]
                picked = random_.sample(found, min(len(found), random_.randint(3, 6)))
                queries.append("how does " + " the ".join(picked[:2]) + " " + " ".join(picked[2:]))
        folder = arguments.directory / "docs" / f"{file // 100:04}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"page-{file:06}.md").write_text("\n".join(lines))
    (arguments.directory / "queries.txt").write_text("\n".join(queries) + "\n")
    print(f"{arguments.files} files, {number} sections, {len(queries)} queries")


if __name__ == "__main__":
    main()
