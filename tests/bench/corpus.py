"""A generated documentation tree: real English words, Zipf frequencies, topics. The same seed gives the same bytes.

    python3 tests/bench/corpus.py DIR --files 10000 [--sections 10] [--words 120] [--queries 2000]

DIR/docs/NNN/*.md are the files: each section is one passage. DIR/queries.txt holds questions made of words that stand
together in some section, with the small words that people write between them.
"""

import argparse
import json
import pathlib
import random

VOCABULARY = pathlib.Path(__file__).parents[2] / "src/embed/static_minilm/tokenizer.json"
GLUE = "the of to and in a is for that with on as by it from are be this or an at which".split()


def zipf(words, exponent):
    total, weights = 0.0, []
    for rank in range(1, len(words) + 1):
        total += 1.0 / rank**exponent
        weights.append(total)
    return weights


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
    vocabulary = json.loads(VOCABULARY.read_text())["model"]["vocab"]
    words = [word for word, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
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
        lines = [f"# {title}", ""]
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
