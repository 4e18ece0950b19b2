"""Replies of a node that are spoilt in one place, as an attacker or a broken node would: each by its name.

A mutation changes a packed reply in place, by a generator, and returns the clients that it concerns: these
alone where each client's reply is its own, and all of the node where what it says is of all of them.
"""

import json
import math
import pickle
from collections.abc import Callable
from io import BytesIO
from random import Random
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from strategies.wire.records import PLAN

T = TypeVar("T")
Clients = set[int]
Mutation = Callable[[RecordDict, Random], Clients | None]
"""None is that this reply has no such place."""

DEEP = "[" * 100_000 + "]" * 100_000
SUMS = ("sum", "statistics-sum")
MISSING = object()
FOREIGN = 0
"""A client that lives on the other node."""


class Exploit:
    """Does something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


def plan(content: RecordDict) -> ConfigRecord:
    return content.config_records[PLAN]


def groups(content: RecordDict) -> list[dict[str, Any]]:
    return json.loads(str(plan(content)["groups"]))  # type: ignore[no-any-return]


def hosted(content: RecordDict) -> Clients:
    return {client for group in groups(content) for client in group["clients"]}


def by_record(content: RecordDict) -> dict[str, Clients]:
    """Return record -> whose it is."""
    owners: dict[str, Clients] = {}
    for group in groups(content):
        for key in group["records"].values():
            owners.setdefault(key, set()).update(group["clients"])
    return owners


def arrays_of(content: RecordDict, rng: Random) -> tuple[ArrayRecord, Clients]:
    """Return one of the records of arrays, and whom it concerns; of a sum, all clients."""
    owners = by_record(content)
    keys = sorted(content.array_records)
    summed = any(key in SUMS for key in keys)
    key = rng.choice(keys)
    return content.array_records[key], hosted(content) if summed else owners[key]


def saved(array: np.ndarray, **options: Any) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def of(array: np.ndarray, data: bytes | None = None, **fields: Any) -> Array:
    """Return an array of a message, of which some fields are other ones."""
    given = {"dtype": str(array.dtype), "shape": tuple(array.shape), "stype": "numpy.ndarray"} | fields
    return Array(data=saved(array) if data is None else data, **given)


def header(shape: object, dtype: str = "<f4", values: bytes = b"", **more: Any) -> bytes:
    """Return a saved array whose header says this."""
    said = repr({"descr": dtype, "fortran_order": False, "shape": shape} | more).encode()
    said += b" " * (-(len(said) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(said).to_bytes(2, "little") + said + values


# What an array may be instead, given what it was and a generator.
ARRAYS: dict[str, Callable[[np.ndarray, Random], Array]] = {
    "nan": lambda a, rng: of(np.full_like(np.asarray(a, float), math.nan)),
    "inf": lambda a, rng: of(np.full_like(np.asarray(a, float), -math.inf)),
    "one more axis": lambda a, rng: of(a[None]),
    "of one element": lambda a, rng: of(a.reshape(-1)[:1]),
    "transposed": lambda a, rng: of(np.ascontiguousarray(a.T) if a.ndim > 1 else a.reshape(-1, 1)),
    "longer": lambda a, rng: of(np.concatenate([a.reshape(-1)] * 2)),
    "empty": lambda a, rng: of(a.reshape(-1)[:0]),
    "truth": lambda a, rng: of(a.astype(bool)),
    "complex": lambda a, rng: of(a.astype(np.complex64)),
    "longdouble": lambda a, rng: of(a.astype(np.longdouble)),
    "big-endian": lambda a, rng: of(a.astype(f">{a.dtype.kind}{max(a.dtype.itemsize, 2)}")),
    "text": lambda a, rng: of(a.astype("U30")),
    "long text": lambda a, rng: of(np.array(["x"]), header(a.shape, f"<U{10**9}")),
    "dates": lambda a, rng: of(np.zeros(a.shape, "datetime64[s]")),
    "structured": lambda a, rng: of(np.zeros(a.shape, [("x", "f4")])),
    "object": lambda a, rng: of(
        a, saved(np.array([Exploit()] * max(a.size, 1), object), allow_pickle=True), dtype="object"
    ),
    "pickled": lambda a, rng: of(a, pickle.dumps(Exploit())),
    "archive": lambda a, rng: of(a, zipped(a)),
    "truncated": lambda a, rng: of(a, saved(a)[: rng.randrange(len(saved(a)))]),
    "with a tail": lambda a, rng: of(a, saved(a) + b"\x00" * rng.randint(1, 9)),
    "noise": lambda a, rng: of(a, rng.randbytes(rng.randint(0, 400))),
    "4 TiB": lambda a, rng: of(a, header((2**40,), "<f4", b"\0" * 8)),
    "said to be 4 TiB": lambda a, rng: of(a, shape=(2**40,)),
    "minus one": lambda a, rng: of(a, header((-1,), "<f4", b"\0" * 8)),
    "deep header": lambda a, rng: of(a, header((0,), "(" * 5000)),
    "no type": lambda a, rng: of(a, header(a.shape, "nothing")),
    "more in the header": lambda a, rng: of(a, header(a.shape, surplus=1)),
    "another type than said": lambda a, rng: of(a, dtype="float64" if a.dtype != np.float64 else "int8"),
    "another shape than said": lambda a, rng: of(a, shape=(*a.shape, 1)),
    "another form": lambda a, rng: of(a, stype=rng.choice(["torch.Tensor", "pickle", ""])),
}  # fmt: skip


def zipped(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.savez_compressed(buffer, array)
    return buffer.getvalue()


def in_an_array(change: Callable[[np.ndarray, Random], Array]) -> Mutation:
    def mutate(content: RecordDict, rng: Random) -> Clients | None:
        record, clients = arrays_of(content, rng)
        # Of a sum, the large part: there may be nothing in the others.
        key = "-high" if "-high" in record else rng.choice(sorted(record))
        array = record[key].numpy()
        if not array.size:
            return None
        record[key] = change(array, rng)
        return clients

    return mutate


def array_missing(content: RecordDict, rng: Random) -> Clients:
    record, clients = arrays_of(content, rng)
    del record[rng.choice(sorted(record))]
    return clients


def array_renamed(content: RecordDict, rng: Random) -> Clients:
    record, clients = arrays_of(content, rng)
    key = rng.choice(sorted(record))
    record[rng.choice(["x", "", "w/", "../w", key + " "])] = record.pop(key)
    return clients


def array_added(content: RecordDict, rng: Random) -> Clients:
    record, clients = arrays_of(content, rng)
    record[rng.choice(["x", "control/w", "control/x", "/"])] = Array(np.ones((2, 3), np.float32))
    return clients


def kinds_without_end(content: RecordDict, rng: Random) -> Clients:
    """Add small codes of many tensors, each as large as a weight once it is decoded."""
    _, clients = arrays_of(content, rng)
    owners = by_record(content)
    if clients != hosted(content) or len(clients) == 1:
        own = [key for key, whose in owners.items() if whose == clients and key in content.array_records]
    else:
        own = [key for key in SUMS if key in content]
    for key in own:
        held = content.array_records[key]
        name = max(held)
        for place in range(200):
            held[f"kind{place}/{name}"] = held[name]
    return clients


def record_missing(content: RecordDict, rng: Random) -> Clients:
    everybody = hosted(content)
    del content[rng.choice(sorted(content))]
    return everybody


def record_added(content: RecordDict, rng: Random) -> Clients:
    content["surplus"] = rng.choice([ConfigRecord({"x": 1}), MetricRecord({"num-examples": 10**9})])
    return hosted(content)


def record_of_another_kind(content: RecordDict, rng: Random) -> Clients | None:
    key, owners = rng.choice(sorted(content.array_records)), by_record(content)
    del content[key]
    content[key] = rng.choice([ConfigRecord({"w": 1}), MetricRecord({"w": 1})])
    return owners.get(key, hosted(content))


def record_given_to_a_client(names: dict[str, Any]) -> Mutation:
    """Give one client's group a record more: strategies look at the first of a kind."""

    def mutate(content: RecordDict, rng: Random) -> Clients | None:
        changed = groups(content)
        group = rng.choice(changed)
        summed = any(key in content for key in SUMS)
        for name, record in names.items():
            content["more-" + name] = record
            group["records"][name] = "more-" + name
        plan(content)["groups"] = json.dumps(changed)
        return hosted(content) if summed else set(group["clients"])

    return mutate


def in_groups(change: Callable[[list[dict[str, Any]], Random], None]) -> Mutation:
    def mutate(content: RecordDict, rng: Random) -> Clients:
        everybody, changed = hosted(content), groups(content)
        change(changed, rng)
        plan(content)["groups"] = json.dumps(changed)
        return everybody

    return mutate


def client_set(value: Any) -> Mutation:
    return in_groups(lambda found, rng: rng.choice(found)["clients"].__setitem__(0, value))


def client_added(value: Any) -> Mutation:
    return in_groups(lambda found, rng: rng.choice(found)["clients"].append(value))


def text_set(value: Any) -> Mutation:
    """Put something else in the place of a text of the plan."""

    def mutate(content: RecordDict, rng: Random) -> Clients:
        everybody = hosted(content)
        texts = sorted(key for key, text in plan(content).items() if isinstance(text, str))
        key = rng.choice(texts)
        plan(content)[key] = value(str(plan(content)[key]), rng) if callable(value) else value
        return everybody

    return mutate


def key_set(key: str, value: Any) -> Mutation:
    """Set a key of the plan, as far as it is there."""

    def mutate(content: RecordDict, rng: Random) -> Clients | None:
        everybody, held = hosted(content), plan(content)
        if key not in held:
            return None
        held[key] = value(held[key], rng) if callable(value) else value
        return everybody

    return mutate


def key_missing(content: RecordDict, rng: Random) -> Clients:
    everybody, held = hosted(content), plan(content)
    del held[rng.choice(sorted(held))]
    return everybody


def in_metrics(**changed: Any) -> Mutation:
    """Let one client tell other metrics; of a sum, it concerns all of them."""

    def mutate(content: RecordDict, rng: Random) -> Clients:
        told = json.loads(str(plan(content)["metrics"]))
        client, metrics = rng.choice(told)
        for name, value in changed.items():
            metrics[name.replace("_", "-")] = value
            if value is MISSING:
                del metrics[name.replace("_", "-")]
        plan(content)["metrics"] = json.dumps(told)
        return hosted(content) if "sum" in content else {client}

    return mutate


def metrics_set(change: Callable[[list[Any], Random], Any]) -> Mutation:
    def mutate(content: RecordDict, rng: Random) -> Clients:
        told = json.loads(str(plan(content)["metrics"]))
        found = change(told, rng)
        plan(content)["metrics"] = json.dumps(told if found is None else found)
        return hosted(content)

    return mutate


def sum_times(factor: float) -> Mutation:
    """Say a larger sum than the clients have, of the same weights."""

    def mutate(content: RecordDict, rng: Random) -> Clients | None:
        if "sum" not in content:
            return None
        record = content.array_records["sum"]
        record["-high"] = Array(factor * record["-high"].numpy())
        return hosted(content)

    return mutate


def sum_part(name: str, array: np.ndarray) -> Mutation:
    def mutate(content: RecordDict, rng: Random) -> Clients | None:
        found = [key for key in SUMS if key in content]
        if not found:
            return None
        content.array_records[rng.choice(found)][name] = Array(array)
        return hosted(content)

    return mutate


def code_part(key: str, change: Callable[[np.ndarray], np.ndarray]) -> Mutation:
    """Change a part of a compressed tensor."""

    def mutate(content: RecordDict, rng: Random) -> Clients | None:
        keys = [
            (group["records"][key], group["clients"]) for group in groups(content) if key in group["records"]
        ]
        if not keys:
            return None
        record_key, clients = rng.choice(keys)
        record = content.array_records[record_key]
        name = max(record, key=lambda each: record[each].numpy().size)
        record[name] = Array(np.asarray(change(record[name].numpy())))
        return set(clients)

    return mutate


LIE = MetricRecord({"num-examples": 10**15})


def _first(array: np.ndarray, value: Any) -> np.ndarray:
    changed = array.copy()
    changed.reshape(-1)[0] = value
    return changed


def _last(array: np.ndarray, value: Any) -> np.ndarray:
    changed = array.copy()
    changed.reshape(-1)[-1] = value
    return changed


MUTATIONS: dict[str, Mutation] = {
    **{f"array: {name}": in_an_array(change) for name, change in ARRAYS.items()},
    "array missing": array_missing,
    "array renamed": array_renamed,
    "array added": array_added,
    "kinds without end": kinds_without_end,
    "record missing": record_missing,
    "record added": record_added,
    "record of another kind": record_of_another_kind,
    "second metrics": record_given_to_a_client({"other": LIE}),
    "metrics over the told ones": record_given_to_a_client({"metrics": LIE}),
    "config beside": record_given_to_a_client({"config": ConfigRecord({"x": 1})}),
    "second arrays": record_given_to_a_client({"more": ArrayRecord({"w": Array(np.ones(2))})}),
    "groups: foreign client": client_set(FOREIGN),
    "groups: foreign client more": client_added(FOREIGN),
    "groups: no such client": client_added(10**6),
    "groups: negative client": client_set(-1),
    "groups: true for a client": client_set(True),
    "groups: fraction for a client": client_set(1.0),
    "groups: text for a client": client_set("1"),
    "groups: list for a client": client_set([1]),
    "groups: doubled client": in_groups(lambda found, rng: found[0]["clients"].extend(found[0]["clients"])),
    "groups: doubled group": in_groups(lambda found, rng: found.append(found[0])),
    "groups: client missing": in_groups(lambda found, rng: rng.choice(found)["clients"].pop()),
    "groups: none": in_groups(lambda found, rng: found.clear()),
    "groups: no record": in_groups(lambda found, rng: found[0]["records"].update(x="record-99")),
    "groups: record is a number": in_groups(lambda found, rng: found[0]["records"].update(x=7)),
    "groups: no clients": in_groups(lambda found, rng: found[0].pop("clients") and None),
    "groups: no mapping": in_groups(lambda found, rng: found.append(7)),  # type: ignore[arg-type]
    "text: deep": text_set(DEEP),
    "text: none": text_set(""),
    "text: truncated": text_set(lambda text, rng: text[: rng.randrange(len(text))] or "["),
    "text: a number": text_set(7),
    "text: null": text_set("null"),
    "text: object": text_set("{}"),
    "text: bytes": text_set(b"[]"),
    "text: endless": text_set("[" + "1," * 5_000_000 + "1]"),
    "key missing": key_missing,
    "metrics: no examples": in_metrics(num_examples=MISSING),
    "metrics: client missing": metrics_set(lambda told, rng: told.pop() and None),
    "metrics: client doubled": metrics_set(lambda told, rng: told.append(told[0])),
    "metrics: foreign client": metrics_set(lambda told, rng: told[0].__setitem__(0, FOREIGN)),
    "metrics: no pair": metrics_set(lambda told, rng: told.append(7)),
    "metrics: no mapping": metrics_set(lambda told, rng: told[0].__setitem__(1, [1])),
    "metrics: none": in_metrics(**{"num_examples": None}),
    **{
        f"examples: {value!r:.20}": in_metrics(num_examples=value)
        for value in (math.nan, math.inf, -1, 2.5, True, "3", [3], 2**53, 1e300, 10**400, 10**7)
    },
    **{
        f"loss: {value!r:.20}": in_metrics(loss=value)
        for value in (math.nan, -math.inf, "0", True, [1.0], None, {}, 2**63, 10**400)
    },
    "metric without a name": in_metrics(**{"": 1.0}),
    "metric of a long name": in_metrics(**{"x" * 300: 1.0}),
    "metric of a name in colours": in_metrics(**{"\x1b[31mred": 1.0}),
    "metric of a name in lines": in_metrics(**{"a\nb": 1.0}),
    "metrics without end": in_metrics(**{f"x{place}": 1.0 for place in range(20_000)}),
    "failures: of a client that replies": key_set("failures", '[[1, "no", ""]]'),
    "failures: of a foreign client": key_set("failures", f'[[{FOREIGN}, "no", ""]]'),
    "failures: no text": key_set("failures", "[[1, 7, []]]"),
    "failures: no list": key_set("failures", '["no"]'),
    "states: of a foreign client": key_set("states", json.dumps([[FOREIGN, 1, "a" * 64]])),
    "states: no hash": key_set("states", '[[1, 1, "x"]]'),
    "states: no round": key_set("states", json.dumps([[1, "1", "a" * 64]])),
    "states: no client": key_set("states", json.dumps([[[], 1, "a" * 64]])),
    "states: no list": key_set("states", "7"),
    **{
        f"{key}: {value!r:.20}": key_set(key, value)
        for key in ("seconds", "client-bytes")
        for value in (math.nan, math.inf, -1, 1e300, "1", True, [1.0])
    },
    **{
        f"{prefix}-weights: {name}": key_set(f"{prefix}-weights", change)
        for prefix in SUMS
        for name, change in {
            "larger": lambda held, rng: [held[0] + 1, *held[1:]],
            "1e30": lambda held, rng: [1e30, *held[1:]],
            "negative": lambda held, rng: [-held[0], *held[1:]],
            "nan": lambda held, rng: [math.nan, *held[1:]],
            "one less": lambda held, rng: held[1:],
            "one more": lambda held, rng: [*held, held[0]],
            "none": lambda held, rng: [],
            "truths": lambda held, rng: [True] * len(held),
            "texts": lambda held, rng: ["1"] * len(held),
            "a number": lambda held, rng: 3.0,
        }.items()
    },
    **{
        f"sum-shapes: {text:.30}": key_set("sum-shapes", text)
        for text in (
            "[]",
            '[["w", [2, 3]]]',
            '[["w", [3, 2]], ["b", [3]]]',
            '[["w", [2, 3]], ["v", [3]]]',
            '[["b", [9]], ["w", [0]]]',
            '[["w", [1099511627776, 1099511627776]], ["b", [3]]]',
            '[["w", [-2, -3]], ["b", [3]]]',
            '[["w", [true, 6]], ["b", [3]]]',
            '[["w", 6], ["b", [3]]]',
            '[[7, [6]], ["b", [3]]]',
            '[["w", [2, 3]], ["b", [3]], ["control/b", [0]]]',
            '[["w", [2, 3]], ["b", [3' + ", 1" * 80 + "]]]",
        )
    },
    **{f"sum: {factor:g} times as much": sum_times(factor) for factor in (30.0, -30.0, 1e9, 1e30, 1e300)},
    "sum: low parts that are not low": sum_part("-low", np.full(9, 1e9)),
    "sum: low parts outside": sum_part("-starts", np.array([16384], np.int64)),
    "sum: low parts before": sum_part("-starts", np.array([-16384], np.int64)),
    "sum: starts that are no numbers": sum_part("-starts", np.array([math.nan])),
    "sum: rest outside": sum_part("-rest", np.array([[99.0], [1.0]])),
    "sum: rest before": sum_part("-rest", np.array([[-1.0], [1.0]])),
    "sum: rest between": sum_part("-rest", np.array([[0.5], [1.0]])),
    "sum: rest without end": sum_part("-rest", np.array([[0.0], [1e300]])),
    "sum: rest of nan": sum_part("-rest", np.array([[math.nan], [1.0]])),
    "sum: rest of one row": sum_part("-rest", np.zeros((1, 2))),
    "values: of one for all": code_part("values", lambda part: part[0]),
    "values: one too many": code_part("values", lambda part: np.append(part, part[:1])),
    "values: text": code_part("values", lambda part: part.astype("U30")),
    "values: nan": code_part("values", lambda part: _first(part, math.nan)),
    "indices: negative": code_part("indices", lambda part: _first(part, -1)),
    "indices: beyond": code_part("indices", lambda part: _last(part, 99)),
    "indices: one twice": code_part("indices", lambda part: np.full_like(part, part[0])),
    "indices: falling": code_part("indices", lambda part: part[::-1].copy()),
    "indices: of int64": code_part("indices", lambda part: part.astype(np.int64)),
    "indices: truths": code_part("indices", lambda part: part.astype(bool)),
    "levels: floats": code_part("levels", lambda part: 1e9 * part.astype(np.float32)),
    "levels: wide": code_part("levels", lambda part: part.reshape(-1)[:, None]),
    "levels: of int16": code_part("levels", lambda part: part.astype(np.int16)),
    "scale: a column": code_part("scale", lambda part: np.ones((1000, 1), np.float32)),
    "scale: negative": code_part("scale", lambda part: np.float32(-1)),
    "scale: nan": code_part("scale", lambda part: np.float32(math.nan)),
    "scale: inf": code_part("scale", lambda part: np.float32(math.inf)),
    "scale: whole": code_part("scale", lambda part: np.int64(7)),
    "halves: inf": code_part("bfloat16", lambda part: np.full_like(part, 0x7F80)),
    "halves: floats": code_part("bfloat16", lambda part: part.astype(np.float32)),
    "halves: long": code_part("bfloat16", lambda part: np.concatenate([part.reshape(-1)] * 2)),
}  # fmt: skip
