"""Ways to change a saved file, each a function of a random generator and the file taken apart."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import struct
import warnings
import zipfile

import numpy as np
import safetensors.numpy

BOMB = 1 << 24


class Saved:
    """A saved file taken apart."""

    def __init__(self, content):
        self.content = content
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            self.members = {name: archive.read(name) for name in archive.namelist()}
        self.manifest = json.loads(self.members.pop("manifest.json"))

    def zipped(self, members=None, manifest=None, *, rehash=True, extra=(), deflate=()):
        """Put a file together again."""
        members = self.members if members is None else members
        manifest = json.loads(json.dumps(self.manifest)) if manifest is None else manifest
        if rehash:
            manifest["members"] = {
                name: {"size": len(its), "sha256": hashlib.sha256(its).hexdigest()}
                for name, its in members.items()
            }
        buffer = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
            warnings.simplefilter("ignore")  # of names that stand twice
            for name, its in [*members.items(), *extra]:
                kind = zipfile.ZIP_DEFLATED if name in deflate else zipfile.ZIP_STORED
                archive.writestr(name, its, kind)
            text = manifest if isinstance(manifest, str | bytes) else json.dumps(manifest)
            archive.writestr("manifest.json", text)
        return buffer.getvalue()

    def pick(self, chance, ending):
        """One member by the end of its name, the weights more often than others."""
        return chance.choice([name for name in self.members if name.endswith(ending)])


def flip_bits(chance, content, n_bits=1):
    """Change a few bits."""
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


def members_swapped(chance, saved):
    one, two = chance.sample(sorted(saved.members), 2)
    swapped = saved.members | {one: saved.members[two], two: saved.members[one]}
    return saved.zipped(swapped, rehash=False)


def members_swapped_rehashed(chance, saved):
    ending = chance.choice(["json", "safetensors"])
    one, two = chance.sample([name for name in saved.members if name.endswith(ending)], 2)
    return saved.zipped(saved.members | {one: saved.members[two], two: saved.members[one]})


def a_member_twice(chance, saved):
    name = chance.choice([*saved.members, "manifest.json"])
    its = saved.members.get(name, b"{}")
    return saved.zipped(extra=[(name, chance.choice([its, b"", flip_bits(chance, its)]))])


def a_member_more_or_less(chance, saved):
    if chance.random() < 0.5:
        less = dict(saved.members)
        del less[chance.choice(sorted(less))]
        return saved.zipped(less, rehash=chance.random() < 0.5)
    name = chance.choice(["9.json", "9.safetensors", "x.py", "__init__.py", "0.pkl", "7.skops"])
    return saved.zipped(saved.members | {name: b"{}"}, rehash=chance.random() < 0.5)


def a_path_for_a_name(chance, saved):
    names = ["../1.json", "/etc/1.json", "a/1.json", "..\\1.json", "C:\\1.json", ".", "1.json@.py"]
    name = chance.choice(names)
    members = dict(saved.members)
    members[name] = members.pop("1.json") if chance.random() < 0.5 else b"{}"
    content = saved.zipped(members, rehash=chance.random() < 0.7)
    return content.replace(b"1.json@.py", b"1.json\0.py")  # zipfile reads up to the zero


def a_zip_bomb(chance, saved):
    name = chance.choice([*saved.members, "manifest.json"])
    if name == "manifest.json":
        manifest = " " * BOMB + json.dumps(saved.manifest)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("manifest.json", manifest)
        return buffer.getvalue()
    bomb = saved.members[name] + b" " * BOMB
    return saved.zipped(saved.members | {name: bomb}, deflate=[name])


def false_sizes_in_the_directory(chance, saved):
    content = bytearray(saved.content)
    at = content.rindex(b"PK\x01\x02") if chance.random() < 0.3 else content.index(b"PK\x01\x02")
    field = chance.choice([20, 24, 42, 16, 8, 10, 28, 30])
    content[at + field : at + field + 4] = struct.pack("<I", chance.choice([0, 2**31, 2**32 - 1]))
    return bytes(content)


def a_false_manifest(chance, saved):
    manifest = json.loads(json.dumps(saved.manifest))
    _replace_somewhere(chance, manifest)
    return saved.zipped(manifest=manifest, rehash=False)


def manifest_text(chance, saved):
    text = json.dumps(saved.manifest)
    return saved.zipped(
        manifest=chance.choice(
            [
                "[" * 100_000,
                '{"a":' * 100_000,
                text[:-1] + ', "format": "x"}',
                text.replace("1", "1" * 5000, 1),
                text.replace("1", "NaN", 1),
                flip_bits(chance, text.encode(), 3),
                text[: chance.randrange(len(text))],
                b"\xff\xfe" + text.encode("utf-16"),
                "null",
                "",
            ]
        ),
        rehash=False,
    )


def a_newer_protocol(chance, saved):
    manifest = saved.manifest | {"protocol": chance.choice([2, 3, 99, 10**30])}
    return saved.zipped(manifest=manifest, extra=[("0.parquet", b"")] * chance.randrange(2))


def an_unknown_kind(chance, saved):
    manifest = json.loads(json.dumps(saved.manifest))
    its = chance.choice(manifest["objects"])
    its["kind"] = chance.choice(
        ["os.system", "builtins.eval", "DIN", "sklearn.svm.SVC", "", None, 3, "skops", ["Pipeline"]]
        + [other["kind"] for other in manifest["objects"]]
    )
    return saved.zipped(manifest=manifest)


VALUES = (None, True, -1, 0, 2, 3, 7, 10**9, 2**63, 10**400, 0.5, -0.0, 1e308, "", "item", "nan")
VALUES += ("os.system", "__class__", "../x", "\udc80", [], {}, [[]], {"tuple": []}, {"dict": []})
VALUES += ({"float": "nan"}, {"float": "inf"}, {"object": "x"}, {"array": "x"}, {"eval": "1"})
VALUES += ({"numpy": ["float32", 1.5]}, {"numpy": ["int8", 900]}, {"dict": [["a", 1], ["a", 2]]})
VALUES += ({"tuple": [10**9, 10**9]}, {"tuple": [1] * 500}, {"values": [[10**9], []]})
VALUES += ({"Timestamp": [2**62, "s", None]}, {"datetime": ["2024-01-01", "dateutil//x", 0]})
VALUES += ({"RandomState": [[], 10**6, 0, 0.0]}, {"Decimal": "1e999999"}, {"bytes": "!"})


def _places(node, found):
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        found.append((node, key))
        if isinstance(value, dict | list):
            _places(value, found)
    return found


def _replace_somewhere(chance, node):
    """Replace, remove, double or exchange a part of a JSON value."""
    places = _places(node, [])
    if not places:
        return
    parent, key = chance.choice(places)
    action = chance.random()
    if action < 0.6:
        parent[key] = copy.deepcopy(chance.choice(VALUES))
    elif action < 0.75:
        del parent[key]
    elif action < 0.85 and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif isinstance(parent, dict):
        parent[chance.choice(["tuple", "dict", "x", "array", "text", "object"])] = parent.pop(key)
    else:
        other, place = chance.choice(places)
        parent[key], other[place] = other[place], parent[key]


def json_changed(chance, saved):
    name = saved.pick(chance, "json")
    node = json.loads(saved.members[name])
    for _ in range(chance.choice([1, 1, 1, 3])):
        _replace_somewhere(chance, node)
    try:
        text = json.dumps(node).encode()
    except (ValueError, RecursionError):  # a part was put into itself
        text = b"{}"
    return saved.zipped(saved.members | {name: text})


def json_bits(chance, saved):
    name = saved.pick(chance, "json")
    return saved.zipped(saved.members | {name: flip_bits(chance, saved.members[name])})


def json_deep_or_huge(chance, saved):
    name = saved.pick(chance, "json")
    text = chance.choice(["[" * 99_999, '{"tuple":[' * 9_999, "9" * 9_999, '{"dict": []', "1e999"])
    return saved.zipped(saved.members | {name: text.encode()})


def a_larger_network(chance, saved):
    """Options that tell of more than there is."""
    members = dict(saved.members)
    for name in [name for name in members if name.endswith("json")]:
        text = members[name].decode()
        units = chance.choice(["1000000000", ", ".join(["4"] * 5000), "0", "-1", '"4"'])
        width = chance.choice(["1000000000", "0", "3", "null", '{"dict": []}'])
        if chance.random() < 0.5:
            text = text.replace('{"tuple": [4]}', f'{{"tuple": [{units}]}}')
        else:
            text = text.replace('["embedding_dim", 2]', f'["embedding_dim", {width}]')
        members[name] = text.encode()
    return saved.zipped(members)


def ids_out_of_range(chance, saved):
    """Another number of ids than the vocabulary has, or another vocabulary."""
    members = dict(saved.members)
    name = saved.pick(chance, "json")
    node = json.loads(members[name])
    pairs = [parent for parent, key in _places(node, []) if key == 0 and parent[0] == "n_ids"]
    for pair in pairs[: chance.randrange(1, 4)]:
        pair[1] = chance.choice([0, 1, 2, 5, 10**6, 10**12, -3])
    members[name] = json.dumps(node).encode()
    return saved.zipped(members)


def arrays_changed(chance, saved):
    name = saved.pick(chance, "safetensors")
    arrays = safetensors.numpy.load(saved.members[name])
    key = chance.choice(sorted(arrays))
    array = arrays[key]
    action = chance.randrange(8)
    if action == 0:
        other = chance.choice(["f4", "f8", "f2", "i8", "i4", "u1", "?", "u4"])
        with np.errstate(all="ignore"):
            arrays[key] = array.astype(other)
    elif action == 1:
        arrays[key] = array[..., None] if chance.random() < 0.5 else array.ravel()[:-1]
    elif action == 2:
        del arrays[key]
    elif action == 3:
        arrays[key + "x"] = arrays.pop(key)
    elif action == 4:
        arrays["more"] = array
    elif action == 5 and array.size and array.dtype.kind in "iu":
        flat = array.copy().ravel()
        flat[chance.randrange(len(flat))] = np.iinfo(array.dtype).max
        arrays[key] = flat.reshape(array.shape)
    elif action == 6:
        arrays[key] = np.zeros((0,), dtype=array.dtype)
    else:
        other = chance.choice(sorted(arrays))
        arrays[key], arrays[other] = arrays[other], arrays[key]
    return saved.zipped(saved.members | {name: safetensors.numpy.save(arrays)})


def numbers_not_finite(chance, saved):
    name = saved.pick(chance, "safetensors")
    arrays = safetensors.numpy.load(saved.members[name])
    key = chance.choice(sorted(arrays))
    array = np.array(arrays[key])
    if array.dtype.kind == "f" and array.size:
        array.ravel()[chance.randrange(array.size)] = chance.choice([np.nan, np.inf, -np.inf])
    arrays[key] = array
    return saved.zipped(saved.members | {name: safetensors.numpy.save(arrays)})


def array_bits(chance, saved):
    name = saved.pick(chance, "safetensors")
    return saved.zipped(saved.members | {name: flip_bits(chance, saved.members[name], 2)})


def a_huge_array_header(chance, saved):
    name = saved.pick(chance, "safetensors")
    content = saved.members[name]
    length = struct.unpack("<Q", content[:8])[0]
    header = content[8 : 8 + length].decode()
    action = chance.randrange(4)
    if action == 0:
        changed = struct.pack("<Q", chance.choice([2**40, 2**63, 0, length - 1])) + content[8:]
        return saved.zipped(saved.members | {name: changed})
    if action == 1:
        header = header.replace('"shape":[', '"shape":[1000000000,', 1)
    elif action == 2:
        header = header.replace('"data_offsets":[', '"data_offsets":[0,999999999999],"x":[', 1)
    else:
        header = header.replace(
            '"F32"', chance.choice(['"BF16"', '"F8_E4M3"', '"I64"', '"PICKLE"'])
        )
    text = header.encode()
    changed = struct.pack("<Q", len(text)) + text + content[8 + length :]
    return saved.zipped(saved.members | {name: changed})


def a_false_step_of_skops(chance, saved):
    name = saved.pick(chance, "skops")
    inner = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved.members[name])) as archive:
        parts = {its: archive.read(its) for its in archive.namelist()}
    action = chance.randrange(5)
    schema = json.loads(parts["schema.json"])
    if action == 0:
        schema["__module__"], schema["__class__"] = chance.choice(
            [("os", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("antigravity", "x")]
        )
    elif action == 1:
        _replace_somewhere(chance, schema)
    elif action == 2:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "<f8", "fortran_order": False, "shape": (10**9,)}
        )
        parts["1.npy"] = header.getvalue()
    elif action == 3:
        parts["1.npy"] = b"\0" * BOMB
    else:
        saved_bits = flip_bits(chance, saved.members[name], 2)
        return saved.zipped(saved.members | {name: saved_bits})
    parts["schema.json"] = json.dumps(schema, default=str).encode()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED if action == 3 else 0) as archive:
        for its, content in parts.items():
            archive.writestr(its, content)
    return saved.zipped(saved.members | {name: inner.getvalue()})


# Kind of mutation -> how often it is drawn. Those of the first group leave sizes and sums alone.
UNHASHED = {
    **{a_flipped_bit: 8, truncated: 3, bytes_overwritten: 4, bytes_inserted: 3, members_swapped: 2},
    **{a_zip_bomb: 1, false_sizes_in_the_directory: 3, manifest_text: 2, a_newer_protocol: 1},
    a_member_twice: 2,
}
REHASHED = {
    **{a_member_more_or_less: 2, a_path_for_a_name: 2, a_false_manifest: 5, an_unknown_kind: 3},
    **{members_swapped_rehashed: 2, json_changed: 20, json_bits: 8, json_deep_or_huge: 1},
    **{a_larger_network: 2, ids_out_of_range: 2, arrays_changed: 10, numbers_not_finite: 4},
    **{array_bits: 6, a_huge_array_header: 4, a_false_step_of_skops: 5},
}
