"""Saved files changed in thousands of ways: none may run code, take memory, or predict wrongly.

    python -m benchmarks.tampering [--mutations 6000] [--seed 0]

Each mutation changes a file of ``sklearn_din.save``. Of a "forged" one the zip was written again
with right checksums, so that the checks behind them are reached. Such a file may hold another
model, as valid as the first ("another model"): checksums guard against damage, only a signature
would guard against forgery. Everywhere else, the outcome must be an error of ours or the very same
predictions.
"""

from __future__ import annotations

import argparse
import codecs
import copy
import importlib
import io
import json
import random
import resource
import struct
import sys
import tempfile
import tracemalloc
import warnings
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from sklearn_din import load, save
from sklearn_din.saving import OWN_TYPES, ModelFileError
from sklearn_din.utils.plain_values import KIND, read_value, write_value
from tests.abilities import ABILITIES, FRAME, make_encoder, outputs
from tests.model_origins import SMALL, make_origins

BOMB = 1 << 24
MEMORY_PER_BYTE, MEMORY_FLOOR = 16, 8 << 20  # parsed JSON takes several times its text
FORBIDDEN = ("exec", "subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn")
FORBIDDEN += ("socket.connect", "ctypes.dlopen", "pickle.find_class", "marshal.loads", "os.remove")
JSON_ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-be", "utf-16-le")
JSON_ENCODINGS += ("utf-32", "utf-32-be", "utf-32-le")
TRUSTED = {*OWN_TYPES, "sklearn.pipeline.Pipeline"}
TRUSTED |= {"sklearn.preprocessing._function_transformer.FunctionTransformer"}
OUTCOMES = ("refused", "same predictions", "another model", "refused at predict", "WRONG")

_seen = []
_is_listening = []
_is_watching = False


class Saved:
    """A saved file taken apart."""

    def __init__(self, content):
        self.content = content
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}

    @property
    def schema(self):
        """The text of the file; the texts of our estimators in it are taken apart too."""
        return json.loads(self.members["schema.json"], object_hook=_open_text)

    def zip_with(self, changes, *, extra=(), deflate=()):
        """Put a file together again, with other members."""
        members = self.members | changes
        buffer = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
            warnings.simplefilter("ignore")  # of names that stand twice
            for name, content in [*members.items(), *extra]:
                kind = zipfile.ZIP_DEFLATED if name in deflate else zipfile.ZIP_STORED
                if content is not None:
                    archive.writestr(name, content, kind)
        return buffer.getvalue()

    def zip_with_schema(self, schema):
        try:
            text = json.dumps(json.loads(json.dumps(schema), object_hook=_close_text))
        except (ValueError, RecursionError):  # a part was put into itself
            text = "{}"
        return self.zip_with({"schema.json": text})

    def pick_array(self, chance):
        return chance.choice(sorted(name for name in self.members if name.endswith(".npy")))


def _open_text(node):
    is_text = node.get("__loader__") == "JsonNode" and node["content"].startswith('"{')
    return node | {"content": json.loads(json.loads(node["content"]))} if is_text else node


def _close_text(node):
    is_open = node.get("__loader__") == "JsonNode" and isinstance(node.get("content"), dict)
    return node | {"content": json.dumps(json.dumps(node["content"]))} if is_open else node


def flip_bits(chance, content, n_bits=1):
    changed = bytearray(content)
    for _ in range(n_bits):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def a_flipped_bit(chance, saved):
    return flip_bits(chance, saved.content, chance.choice([1, 1, 1, 8]))


def truncated(chance, saved):
    return saved.content[: chance.randrange(len(saved.content))]


def bytes_overwritten(chance, saved):
    start = chance.randrange(len(saved.content))
    size = chance.randrange(1, 200)
    return saved.content[:start] + chance.randbytes(size) + saved.content[start + size :]


def bytes_inserted(chance, saved):
    at = chance.choice([0, len(saved.content), chance.randrange(len(saved.content))])
    return saved.content[:at] + chance.randbytes(chance.randrange(1, 99)) + saved.content[at:]


def a_member_twice(chance, saved):
    name = chance.choice(sorted(saved.members))
    content = saved.members[name]
    return saved.zip_with({}, extra=[(name, chance.choice([content, b"", content[:-1]]))])


def a_zip_bomb(chance, saved):
    name = chance.choice(sorted(saved.members))
    return saved.zip_with({name: saved.members[name] + b" " * BOMB}, deflate=[name])


def false_sizes_in_the_directory(chance, saved):
    content = bytearray(saved.content)
    at = content.rindex(b"PK\x01\x02") if chance.random() < 0.3 else content.index(b"PK\x01\x02")
    field = chance.choice([20, 24, 42, 16, 8, 10, 28, 30])
    content[at + field : at + field + 4] = struct.pack("<I", chance.choice([0, 2**31, 2**32 - 1]))
    return bytes(content)


def members_swapped(chance, saved):
    names = sorted(saved.members) if chance.random() < 0.2 else sorted(saved.members)[:-1]
    one, two = chance.sample(names, 2)
    return saved.zip_with({one: saved.members[two], two: saved.members[one]})


def a_member_more_or_less(chance, saved):
    if chance.random() < 0.5:
        return saved.zip_with({chance.choice(sorted(saved.members)): None})
    return saved.zip_with({chance.choice(["9.npy", "9.npz", "x.py", "__init__.py", "0.pkl"]): b""})


def a_path_for_a_name(chance, saved):
    name = saved.pick_array(chance)
    path = chance.choice(["../1.npy", "/etc/1.npy", "a/1.npy", "..\\1.npy", "C:\\1.npy", ".", "x"])
    schema = saved.members["schema.json"].replace(name.encode(), path.encode().replace(b"\\", b"/"))
    return saved.zip_with({name: None, path: saved.members[name], "schema.json": schema})


def schema_text(chance, saved):
    text = json.dumps(saved.schema)
    texts = ["[" * 100_000, '{"a":' * 100_000, text[:-1] + ', "__class__": "x"}']
    texts += [text.replace("1", "1" * 5000, 1), text.replace("1", "NaN", 1)]
    texts += [text[: chance.randrange(len(text))], text.encode("utf-16")]
    texts += ["null", "", "1e999", "[]", "{}"]
    return saved.zip_with({"schema.json": chance.choice(texts)})


def schema_bits(chance, saved):
    return saved.zip_with({"schema.json": flip_bits(chance, saved.members["schema.json"])})


VALUES = (None, True, -1, 0, 2, 3, 7, 10**9, 2**63, 10**400, 0.5, -0.0, 1e308, "", "item", "nan")
VALUES += ("os.system", "__class__", "../x", "\udc80", "null", "[]", "{}", "NaN", "Infinity", "9e9")
VALUES += ([], {}, [[]], "true", '"x"', "[1, 2]", "-1", "1e400", "999999999999999999999", "tuple")
KINDS = ("array", "tuple", "dict", "set", "objects", "numpy", "frame", "index", "bytes", "eval")
LOADERS = ("DictNode", "ListNode", "TupleNode", "SetNode", "ObjectNode", "JsonNode", "TypeNode")
LOADERS += ("FunctionNode", "NdArrayNode", "ConstructorFromReduceNode", "BytesNode", "MethodNode")
LOADERS += ("PartialNode", "OperatorFuncNode", "RandomStateNode", "DTypeNode", "SliceNode", "x")


def _places(node, places):
    """All (parent, key) of a JSON value."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        places.append((node, key))
        if isinstance(value, dict | list):
            _places(value, places)
    return places


def _nodes(schema):
    """All nodes of skops, each with the (parent, key) where it stands."""
    return [
        (parent, key)
        for parent, key in _places(schema, [])
        if isinstance(parent[key], dict) and "__loader__" in parent[key]
    ]


def _text_places(schema):
    """All (parent, key) in the texts of our estimators."""
    nodes = [parent[key] for parent, key in _nodes(schema)]
    texts = [n["content"] for n in nodes if n["__loader__"] == "JsonNode"]
    return [place for text in texts if isinstance(text, dict) for place in _places(text, [])]


def schema_changed(chance, saved):
    """Replace, remove, double or exchange any part of the text."""
    schema = saved.schema
    for _ in range(chance.choice([1, 1, 1, 3])):
        places = _places(schema, [])
        parent, key = chance.choice(places)
        action = chance.random()
        if action < 0.6:
            parent[key] = copy.deepcopy(chance.choice(VALUES))
        elif action < 0.75:
            del parent[key]
        elif action < 0.85 and isinstance(parent, list):
            parent.insert(key, parent[key])
        elif isinstance(parent, dict):
            parent[chance.choice(["content", "x", "__id__", "file", "text"])] = parent.pop(key)
        else:
            other, place = chance.choice(places)
            parent[key], other[place] = other[place], parent[key]
    return saved.zip_with_schema(schema)


def a_value_changed(chance, saved):
    """Replace a number, a text or a constant, as it would stand in a valid file."""
    schema = saved.schema
    places = [(p, k) for p, k in _text_places(schema) if not isinstance(p[k], dict | list)]
    for parent, key in chance.sample(places, chance.choice([1, 1, 1, 3])):
        parent[key] = copy.deepcopy(chance.choice(VALUES))
    return saved.zip_with_schema(schema)


def another_kind(chance, saved):
    """Another kind of value, made of the same parts."""
    schema = saved.schema
    parent, key = chance.choice([(p, k) for p, k in _text_places(schema) if k == KIND])
    parent[key] = chance.choice(KINDS)
    return saved.zip_with_schema(schema)


def parts_exchanged(chance, saved):
    """One part of a text in the place of another, or a second time."""
    schema = saved.schema
    (one, key), (other, place) = chance.sample(_text_places(schema), 2)
    values = copy.deepcopy([one[key], other[place]])
    one[key], other[place] = values[1], values[chance.randrange(2)]
    return saved.zip_with_schema(schema)


def nodes_exchanged(chance, saved):
    """One object in the place of another, or a second time."""
    schema = saved.schema
    (one, key), (other, place) = chance.sample(_nodes(schema), 2)
    if chance.random() < 0.5:
        one[key] = {**one[key], "__id__": other[place].get("__id__")}
    else:
        one[key] = copy.deepcopy(other[place])
    return saved.zip_with_schema(schema)


def another_loader(chance, saved):
    schema = saved.schema
    parent, key = chance.choice(_nodes(schema))
    parent[key]["__loader__"] = chance.choice(LOADERS)
    return saved.zip_with_schema(schema)


HOSTILE = [("os", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("antigravity", "x")]
HOSTILE += [("posix", "system"), ("builtins", "exec"), ("pathlib", "Path"), ("pickle", "loads")]
HOSTILE += [("numpy", "load"), ("joblib", "load"), ("sklearn_din", "load"), ("builtins", "open")]


def a_hostile_type(chance, saved):
    schema = saved.schema
    parent, key = chance.choice(_nodes(schema))
    module, name = chance.choice(HOSTILE)
    kind = chance.choice(LOADERS)
    node = {"__module__": module, "__class__": name, "__loader__": kind}
    arguments = {"__module__": "builtins", "__class__": "str", "__loader__": "JsonNode"}
    arguments |= {"content": '"echo hello"'}
    argument = {"__module__": "builtins", "__class__": "tuple", "__loader__": "TupleNode"}
    node |= {"content": argument | {"content": [arguments]}, "attrs": argument | {"content": []}}
    parent[key] = node if chance.random() < 0.5 else {**parent[key], **node}
    return saved.zip_with_schema(schema)


def own_type_elsewhere(chance, saved):
    """Another class that is trusted in the place of one, with the other's state."""
    schema = saved.schema
    own = [(p, k) for p, k in _nodes(schema) if p[k]["__loader__"] == "ObjectNode"]
    parent, key = chance.choice(own)
    module, _, name = chance.choice(sorted(TRUSTED)).rpartition(".")
    parent[key] |= {"__module__": module, "__class__": name}
    parent[key]["__loader__"] = chance.choice(["ObjectNode", "ConstructorFromReduceNode"])
    return saved.zip_with_schema(schema)


def ids_out_of_range(chance, saved):
    """Another number of ids than the vocabulary has."""
    schema = saved.schema
    places = [(p, k) for p, k in _places(schema, []) if k == "n_ids"]
    for parent, key in chance.sample(places, chance.randrange(1, 4)):
        parent[key] = chance.choice([0, 1, 2, 5, 10**6, 10**12, -3])
    return saved.zip_with_schema(schema)


def _array(content):
    return np.load(io.BytesIO(content), allow_pickle=False)


def _octets(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def arrays_changed(chance, saved):
    name = saved.pick_array(chance)
    array = _array(saved.members[name])
    action = chance.randrange(5)
    if action == 0:
        kind = chance.choice(["f4", "f8", "f2", "i8", "i4", "u1", "?", "u4", "U3", "S2"])
        with np.errstate(all="ignore"):
            array = array.astype(kind)
    elif action == 1:
        array = array[..., None] if chance.random() < 0.5 else array.ravel()[:-1]
    elif action == 2 and array.size and array.dtype.kind in "iu":
        array = array.copy()
        array.ravel()[chance.randrange(array.size)] = chance.choice([0, np.iinfo(array.dtype).max])
    elif action == 3:
        array = np.zeros((0,), dtype=array.dtype)
    else:
        array = _array(saved.members[saved.pick_array(chance)])
    return saved.zip_with({name: _octets(array)})


def numbers_not_finite(chance, saved):
    name = saved.pick_array(chance)
    array = _array(saved.members[name])
    if array.dtype.kind == "f" and array.size:
        place = np.unravel_index(chance.randrange(array.size), array.shape)
        array[place] = chance.choice([np.nan, np.inf, -np.inf])
    return saved.zip_with({name: _octets(array)})


def array_bits(chance, saved):
    name = saved.pick_array(chance)
    return saved.zip_with({name: flip_bits(chance, saved.members[name], 2)})


def a_huge_array_header(chance, saved):
    name = saved.pick_array(chance)
    descr = chance.choice(["<f8", "<f4", "|O", "<U9999999", "<i8", "|V99999999"])
    shape = chance.choice([(10**9,), (2**40, 2**40), (-1,), (), (0,), (10**6, 10**6)])
    header = io.BytesIO()
    described = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    return saved.zip_with({name: header.getvalue() + saved.members[name][128:]})


# Kind of mutation -> how often it is drawn. Those of the first group leave the checksums alone.
DAMAGES = {
    **{a_flipped_bit: 8, truncated: 3, bytes_overwritten: 4, bytes_inserted: 3},
    **{a_zip_bomb: 1, false_sizes_in_the_directory: 3, a_member_twice: 2},
}
FORGERIES = {
    **{members_swapped: 4, a_member_more_or_less: 2, a_path_for_a_name: 2, schema_text: 3},
    **{schema_bits: 8, schema_changed: 15, a_value_changed: 12, nodes_exchanged: 6},
    **{another_kind: 6, parts_exchanged: 8},
    **{another_loader: 4, a_hostile_type: 8, own_type_elsewhere: 4},
    **{ids_out_of_range: 2, arrays_changed: 12, numbers_not_finite: 4},
    **{array_bits: 6, a_huge_array_header: 4},
}


def listen():
    """Have what a file runs be noted from now on; Python cannot take it back.

    Codecs that json may choose by a file's first bytes are imported before: Python does it when the
    first such file comes, and runs code of its own.
    """
    for encoding in JSON_ENCODINGS:
        codecs.lookup(encoding)
    if not _is_listening:
        _is_listening.append(True)
        sys.addaudithook(_audit)


def _audit(event, arguments):
    if not _is_watching:
        return
    if event in FORBIDDEN or event == "import":
        _seen.append(f"{event} {arguments[0]!r:.80}")
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        _seen.append(f"open {arguments[0]!r:.80} for writing")


def make_models(folder):
    """Name -> fitted model, and name -> the rows that it predicts."""
    models, rows = make_origins(Path(folder) / "sources")
    rows = dict.fromkeys(models, rows.head(12))
    for ability, (kind, options, own_y) in ABILITIES.items():
        steps = [("encode", make_encoder()), ("din", kind(**SMALL, **options))]
        models[ability], rows[ability] = Pipeline(steps).fit(FRAME, own_y), FRAME.head(12)
    return models, rows


class Judge:
    """Loads a changed file, and says what came of it."""

    def __init__(self, models, rows, folder):
        self.rows, self.path = rows, Path(folder) / "changed.din"
        self.saved, self.truth = {}, {}
        for name, model in models.items():
            path = Path(folder) / f"{name}.din"
            save(model, path)
            self.saved[name] = Saved(path.read_bytes())
            self.truth[name] = outputs(model, rows[name])
            repr(model)  # scikit-learn imports what it needs for that when first asked
            assert (outputs(load(path), rows[name]) == self.truth[name]).all()
        read_value(*write_value(pd.Timestamp("2024-01-01", tz="Europe/Berlin")))  # finds the zones
        for name in TRUSTED:
            importlib.import_module(name.rpartition(".")[0])
        self.worst_memory = 0.0

    def outcome(self, name, content, *, is_forged):
        """One of OUTCOMES, and a sentence where it is WRONG."""
        global _is_watching
        self.path.write_bytes(content)
        _seen.clear()
        tracemalloc.start()
        _is_watching = True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome, sentence = self._load_and_predict(name)
        finally:
            _is_watching = False
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        allowed = MEMORY_FLOOR + MEMORY_PER_BYTE * len(content)
        self.worst_memory = max(self.worst_memory, peak / allowed)
        if _seen:
            return "WRONG", f"it ran code: {_seen[:3]} {sentence}"
        if peak > allowed:
            return "WRONG", f"it took {peak:,} bytes for a file of {len(content):,}"
        if outcome in ("another model", "refused at predict") and not is_forged:
            return "WRONG", f"{outcome} although no checksum was forged {sentence}"
        return outcome, sentence

    def _load_and_predict(self, name):
        try:
            model = load(self.path)
        except ModelFileError:
            return "refused", ""
        except Exception as error:
            return "WRONG", f"load raised {error!r}"
        try:
            predicted = outputs(model, self.rows[name])
        except Exception as error:  # skops checks no attributes of a Pipeline
            return "refused at predict", repr(error)
        is_same = np.array_equal(predicted, self.truth[name])
        return ("same predictions" if is_same else "another model"), ""


def try_mutations(n_mutations, seed, folder):
    """Outcomes by kind of mutation, sentences of wrong ones, most memory by the limit."""
    judge = Judge(*make_models(folder), folder)
    counts, wrong = defaultdict(Counter), []
    chance = random.Random(seed)
    kinds = DAMAGES | FORGERIES
    drawn = list(kinds) + chance.choices(list(kinds), list(kinds.values()), k=n_mutations)
    for number, mutate in enumerate(drawn[:n_mutations]):
        name = chance.choice(list(judge.saved))
        content = mutate(chance, judge.saved[name])
        outcome, sentence = judge.outcome(name, content, is_forged=mutate in FORGERIES)
        counts[mutate.__name__, mutate in FORGERIES][outcome] += 1
        if outcome == "WRONG":
            wrong.append(f"{number} {mutate.__name__} of {name}: {sentence}")
    return counts, wrong, judge.worst_memory


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    listen()
    with tempfile.TemporaryDirectory() as folder:
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + (3 << 30),) * 2)
        counts, wrong, memory = try_mutations(arguments.mutations, arguments.seed, folder)
    table = pd.DataFrame(counts).T.reindex(columns=OUTCOMES).fillna(0).astype(int)
    table.index.names = ["mutation", "forged"]
    table.loc[("all", ""), :] = table.sum()
    print(table.astype(int).to_string())
    limit = f"{MEMORY_FLOOR >> 20} MiB + {MEMORY_PER_BYTE} bytes per byte of the file"
    print(f"\nmost memory: {memory:.0%} of {limit}")
    print("\n".join(wrong) or "none wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
