"""A stand-in for all-MiniLM-L6-v2 in ONNX: its architecture and its tokens, with random weights.

The peers' MCP servers download that model when they start. What it costs is a matter of its shapes alone (6 layers of 384
numbers, 12 heads, 1,536 inside), what it finds is not measured through it, so a stand-in of the same shapes tells the same
costs on a machine without internet.
"""

import hashlib
import json
import pathlib

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, WIDTH, HEADS, INNER, POSITIONS = 6, 384, 12, 1_536, 512


class Graph:
    def __init__(self, vocabulary):
        self.random = numpy.random.default_rng(7)
        self.nodes, self.weights = [], []
        self.vocabulary = vocabulary

    def weight(self, name, *shape):
        values = self.random.normal(0.0, 0.02, shape).astype(numpy.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def constant(self, name, values, kind=numpy.int64):
        self.weights.append(numpy_helper.from_array(numpy.array(values, dtype=kind), name))
        return name

    def node(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def linear(self, name, value, wide, narrow):
        product = self.node("MatMul", [value, self.weight(f"{name}.w", wide, narrow)], f"{name}.p")
        return self.node("Add", [product, self.weight(f"{name}.b", narrow)], f"{name}.o")

    def norm(self, name, value):
        inputs = [value, self.weight(f"{name}.g", WIDTH), self.weight(f"{name}.s", WIDTH)]
        return self.node("LayerNormalization", inputs, f"{name}.o", axis=-1, epsilon=1e-12)

    def heads(self, name, value):
        split = self.node("Reshape", [value, "split"], f"{name}.split")
        return self.node("Transpose", [split], f"{name}.heads", perm=[0, 2, 1, 3])

    def model(self):
        self.constant("split", [0, 0, HEADS, WIDTH // HEADS])
        self.constant("join", [0, 0, WIDTH])
        self.constant("scale", (WIDTH // HEADS) ** 0.5, numpy.float32)
        self.constant("axes", [1, 2])
        self.constant("one", 1.0, numpy.float32)
        self.constant("far", -10_000.0, numpy.float32)
        words = self.node("Gather", [self.weight("words", self.vocabulary, WIDTH), "input_ids"], "e.words")
        kinds = self.node("Gather", [self.weight("kinds", 2, WIDTH), "token_type_ids"], "e.kinds")
        shape = self.node("Shape", ["input_ids"], "e.shape")
        self.constant("second", 1)
        length = self.node("Gather", [shape, "second"], "e.length")
        self.constant("zero", 0)
        places = self.node("Range", ["zero", length, "second"], "e.range")
        places = self.node("Gather", [self.weight("places", POSITIONS, WIDTH), places], "e.places")
        value = self.node("Add", [self.node("Add", [words, kinds], "e.both"), places], "e.sum")
        value = self.norm("e.norm", value)
        mask = self.node("Cast", ["attention_mask"], "m.float", to=TensorProto.FLOAT)
        mask = self.node("Unsqueeze", [mask, "axes"], "m.wide")
        mask = self.node("Mul", [self.node("Sub", ["one", mask], "m.away"), "far"], "m.add")
        for layer in range(LAYERS):
            query, key, content = (
                self.heads(f"l{layer}.{part}", self.linear(f"l{layer}.{part}", value, WIDTH, WIDTH)) for part in "qkv"
            )
            key = self.node("Transpose", [key], f"l{layer}.kt", perm=[0, 1, 3, 2])
            scores = self.node("Div", [self.node("MatMul", [query, key], f"l{layer}.qk"), "scale"], f"l{layer}.scaled")
            scores = self.node("Softmax", [self.node("Add", [scores, mask], f"l{layer}.masked")], f"l{layer}.soft", axis=-1)
            mixed = self.node("MatMul", [scores, content], f"l{layer}.mixed")
            mixed = self.node("Transpose", [mixed], f"l{layer}.back", perm=[0, 2, 1, 3])
            mixed = self.node("Reshape", [mixed, "join"], f"l{layer}.joined")
            mixed = self.linear(f"l{layer}.out", mixed, WIDTH, WIDTH)
            value = self.norm(f"l{layer}.n1", self.node("Add", [value, mixed], f"l{layer}.r1"))
            inner = self.node("Gelu", [self.linear(f"l{layer}.in", value, WIDTH, INNER)], f"l{layer}.gelu")
            inner = self.linear(f"l{layer}.down", inner, INNER, WIDTH)
            value = self.norm(f"l{layer}.n2", self.node("Add", [value, inner], f"l{layer}.r2"))
        self.node("Identity", [value], "last_hidden_state")
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", WIDTH])
        graph = helper.make_graph(self.nodes, "minilm", inputs, [output], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def files(folder, words, model_name):
    """What both servers look for beside the model, made of a WordPiece vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    special = {name: f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    tokens = {f"{name}_token": text for name, text in special.items()}
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer", **tokens})
    )
    (folder / "config.json").write_text(
        json.dumps({"model_type": "bert", "hidden_size": WIDTH, "pad_token_id": words.index("[PAD]"), "vocab_size": len(words)})
    )
    from tokenizers import BertWordPieceTokenizer

    BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True).save(str(folder / "tokenizer.json"))
    onnx.save(Graph(len(words)).model(), str(folder / model_name))


def install(home, vocabulary):
    """Puts the stand-in where chromadb and fastembed look for the model below `home`."""
    words = vocabulary.read_text().split("\n")
    words = [word for word in words if word]
    for special in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"):
        if special not in words:
            words.append(special)
    chroma = home / ".cache/chroma/onnx_models/all-MiniLM-L6-v2/onnx"
    files(chroma, words, "model.onnx")
    # The layout of the model hub's cache: a revision's files, and the name of the revision.
    hub = home / "fastembed/models--qdrant--all-MiniLM-L6-v2-onnx"
    revision = hashlib.sha1(b"stand-in").hexdigest()
    (hub / "refs").mkdir(parents=True, exist_ok=True)
    (hub / "refs/main").write_text(revision)
    files(hub / "snapshots" / revision, words, "model.onnx")
    return {"HOME": str(home), "FASTEMBED_CACHE_PATH": str(home / "fastembed"), "HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    import sys

    print(install(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))
