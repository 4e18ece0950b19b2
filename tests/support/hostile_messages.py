"""Messages that no server of polyfed sends, each from a seed.

A mutation changes what is sent, and returns words of which the node's answer must have one.
"""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from models.data.tokens import SPECIAL
from simulations.scenario import defaults
from strategies.algorithms.fedprox import PROXIMAL_MU
from strategies.wire.records import PLAN
from strategies.wire.request import FIXED, ROUND, STATES, STATISTICS, RoundInfo, pack_requests
from strategies.wire.vocabulary import VOCABULARY

FOLDER = Path(sys.argv[1])
HOME, SECRET = FOLDER / "home", FOLDER / "secret"
STATE = HOME / "state"
CODE = (
    "subprocess:Popen",
    "os:system",
    "builtins:exec",
    "antigravity:fly",
    "idlelib.idle:main",
    "evil:Evil",
    "evil.deeper:Evil",
    "clients.state:ClientStates",
    "strategies.conformance.federation:X",
    "../evil:Evil",
)
"""Classes that no node offers; `evil` lies in the folder that the node was started in."""
MODULES = ("antigravity", "this", "idlelib", "evil")
"""Those of them, and others, that a node has no reason to import."""
CONFIG = {
    **defaults(),
    "dataset": "digits",
    "num-clients": 4,
    "examples-per-client": 8,
    "batch-size": 4,
    "keep-optimizer": True,
}
RULE = "strategies.algorithms.fedprox:Proximal"
HUGE = 2**40


@dataclass
class Sent:
    """A message as it goes out, and the run config that comes with it."""

    weights: dict[str, np.ndarray]
    config: dict[str, Any] = field(default_factory=lambda: dict(CONFIG))
    info: dict[str, Any] = field(default_factory=dict)
    words: dict[str, Any] = field(default_factory=lambda: {PROXIMAL_MU: 0.1})
    arrays: dict[str, Array] = field(default_factory=dict)
    change: Callable[[RecordDict], object] = lambda content: None

    def content(self, server_round: int) -> RecordDict:
        """Return the records."""
        arrays = {name: Array(weight) for name, weight in self.weights.items()} | self.arrays
        asked = RecordDict({"arrays": ArrayRecord(arrays), "config": ConfigRecord(self.words)})
        info = RoundInfo(server_round, 0, "run-0123abcd", rules=(RULE,))
        content = pack_requests([(0, asked), (2, asked)], info, states={})
        for name, value in self.info.items():
            content[ROUND][name] = value  # type: ignore[index]
        self.change(content)
        return content


Mutation = Callable[[random.Random, Sent], str]
"""Changes what is sent; returns words, parted by "|", of which the node's answer has one."""


def code(draw: random.Random, sent: Sent) -> str:
    where, name = draw.choice(["task", "dataset", "rules", "personal_rules"]), draw.choice(CODE)
    (sent.config if where in sent.config else sent.info)[where] = name if where in sent.config else [name]
    return "is code that this node does not offer|cannot be imported|unknown dataset"


def no_rule(draw: random.Random, sent: Sent) -> str:
    sent.info["rules"] = [draw.choice(["strategies.wire.reply:NodeReply", "strategies.registry:brings"])]
    return "must be a subclass of strategies.LocalRule"


def package_of_environments(draw: random.Random, sent: Sent) -> str:
    sent.config |= {
        "task": "dqn",
        "dataset": f"gym:{draw.choice(MODULES)}:CartPole-v1?length={draw.random()}",
    }
    return "is code that this node does not offer"


def argument_of_environments(draw: random.Random, sent: Sent) -> str:
    path = draw.choice([f"{SECRET}/x.xml", "../x.xml", "~/x", "a/b.xml", r"C:\x"])
    sent.config |= {"task": "dqn", "dataset": f"gym:CartPole-v1?xml_file={path}"}
    return "must be no path|dataset must be like"


def place_in_dataset(draw: random.Random, sent: Sent) -> str:
    kind = draw.choice(["csv", "text", "conll"])
    path = draw.choice([str(SECRET), f"{SECRET}/x.csv", "../../secret", "a/../../x", "~/x", r"C:\x", r"..\x"])
    sent.config |= {"dataset": f"{kind}:{path}", "data-dir": draw.choice(["", str(SECRET)])}
    return "must have a path below that folder"


def place_of_data(draw: random.Random, sent: Sent) -> str:
    name = draw.choice(["mnist", "cifar10", "csv:x.csv", "text:.", "conll:x"])
    sent.config |= {"dataset": name, "data-dir": str(SECRET), "download": draw.random() < 0.5}
    return "is read from a folder, which a node's owner names"


def backbone(draw: random.Random, sent: Sent) -> str:
    named = draw.choice([str(SECRET), "bert-base-cased", "org/model", "../x", "https://example.org/x"])
    sent.config |= {"task": "ner", "dataset": "pii", "task-options": f"backbone = '{named}'"}
    return "which a node's owner names"


def place_in_options(draw: random.Random, sent: Sent) -> str:
    place = draw.choice([f"{SECRET}/x", "../x", "~/x", "https://example.org", r"C:\x", "file:///etc/passwd"])
    value = draw.choice([f"'{place}'", f"['{place}']", f"{{a = ['b', {{c = '{place}'}}]}}"])
    sent.config[draw.choice(["task-options", "dataset-options", "optimizer-options"])] = f"a = {value}"
    return "must name no path and no address"


def number(draw: random.Random, sent: Sent) -> str:
    key = draw.choice(["num-clients", "examples-per-client", "local-epochs", "batch-size", "threads"])
    sent.config[key] = draw.choice([HUGE, 2**63 - 1, 2**80])
    return "must be"


def value(draw: random.Random, sent: Sent) -> str:
    wrong = [0, -3, "8", True, 2.5, "", [4]]
    key = draw.choice(
        ["batch-size", "num-clients", "threads", "engine", "compression", "attack", "partitioner"]
    )
    names = ["exec", "pickle", "rm -rf", 7]
    sent.config[key] = draw.choice(wrong if key in ("batch-size", "num-clients", "threads") else names)
    return "must be|unknown"


def optimizer(draw: random.Random, sent: Sent) -> str:
    sent.config["optimizer"] = draw.choice(["os.system", "subprocess:Popen", "__import__", "lbfgs", "../sgd"])
    return "unknown optimizer|cannot train here"


def device(draw: random.Random, sent: Sent) -> str:
    sent.config["device"] = draw.choice(["meta", "cuda:99999999999999999999", "/dev/sda", "cpu;ls"])
    return "device"


def long_text(draw: random.Random, sent: Sent) -> str:
    text = draw.choice(["a = " + "[" * 30_000, "a = '" + "x" * 70_000 + "'", "a = 1\nb = 2", "\0"])
    sent.config[draw.choice(["task-options", "dataset-options"])] = text
    return "must be"


def state_path(draw: random.Random, sent: Sent) -> str:
    names = [str(FOLDER / "else"), "../x", "a/b", "..", ".", "", ".x", r"..\x", r"C:\x", "C:x", "x" * 300]
    sent.info["state_path"] = draw.choice([*names, "a\0b", "a b", "é", "linked-0123abcd", "x."])
    return "must give the folder of what clients remember"


def round_info(draw: random.Random, sent: Sent) -> str:
    wrong: list[tuple[str, Any]] = [
        ("server_round", -1),
        ("server_round", 2**62),
        ("server_round", "1"),
        ("restorable_round", -5),
        ("seconds_left", float("nan")),
        ("rules", [7]),
        ("rules", ["x:Y"] * 1000),
        ("rules", ["x" * 100_000]),
        ("repeated", [2.5]),
        ("surplus", 1),
        ("weighted_by", b"bytes"),
    ]
    name, what = draw.choice(wrong)
    sent.info[name] = what
    return "a request's round"


def plan_text(draw: random.Random, sent: Sent) -> str:
    def change(content: RecordDict) -> None:
        plan = content.config_records[PLAN]
        text = str(plan["groups"])
        records = json.loads(text)[0]["records"]
        wrong: list[Any] = [
            text[: draw.randrange(len(text))],
            "[" * 100_000,
            '{"a":' * 100_000,
            json.dumps([{"records": records}]),
            json.dumps([{"records": {}, "clients": [0]}]),
            json.dumps([{"records": records, "clients": [0], "more": 1}]),
            json.dumps([{"records": {**records, "x": "record-99"}, "clients": [0]}]),
            json.dumps([{"records": dict.fromkeys(records, PLAN), "clients": [0]}]),
            "NaN",
            7,
        ]
        plan["groups"] = draw.choice(wrong)

    sent.change = change
    return "a message's plan|a client is asked by|of which its plan says nothing"


def clients(draw: random.Random, sent: Sent) -> str:
    wrong: list[list[Any]] = [[-1], [1], [0, 0], ["0"], [True], [10**30], [4], [2**62], [0.0], [[0]], [None]]
    asked = draw.choice(wrong)

    def change(content: RecordDict) -> None:
        plan = content.config_records[PLAN]
        (group,) = json.loads(str(plan["groups"]))
        plan["groups"] = json.dumps([{**group, "clients": asked}])

    sent.change = change
    return "a message's plan|does not live on this node|clients must be"


def weights(draw: random.Random, sent: Sent) -> str:
    name = draw.choice(list(sent.weights))
    weight = sent.weights[name]
    wrong = [
        weight.astype(np.float64),
        weight.astype(np.int64),
        weight.astype(bool),
        weight.reshape(-1)[:1],
        weight[None],
        weight[..., :-1],
        np.array(1.0, np.float32),
    ]
    if draw.random() < 0.2:
        del sent.weights[name]
    else:
        sent.weights[name] = draw.choice(wrong)
    return "the server sends"


def bytes_of_weights(draw: random.Random, sent: Sent) -> str:
    name = draw.choice(list(sent.weights))
    right = Array(sent.weights[name])
    pickled, huge = BytesIO(), BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    header = {"descr": "<f4", "fortran_order": False, "shape": (HUGE,)}
    np.lib.format.write_array_header_1_0(huge, header)
    said = right.dtype, right.shape, right.stype
    wrong = [
        Array(*said, right.data[: draw.randrange(len(right.data))]),
        Array(*said, right.data + b"more"),
        Array(*said, pickled.getvalue()),
        Array(*said, huge.getvalue()),
        Array("float32", (HUGE,), right.stype, huge.getvalue()),
        Array("object", (1,), right.stype, pickled.getvalue()),
        Array(*said[:2], "pickle", right.data),
        Array("float32", (7, 7), right.stype, right.data),
        Array(*said, bytes(draw.randbytes(len(right.data)))),
        Array(np.array(["text"])),
    ]
    sent.arrays[name] = draw.choice(wrong)
    return "cannot be read|says that it is|comes with|numbers travel"


def not_finite(draw: random.Random, sent: Sent) -> str:
    name = draw.choice(list(sent.weights))
    sent.weights[name] = np.full_like(sent.weights[name], draw.choice([np.nan, np.inf, -np.inf, 3e38]))
    return "finite|nan|inf"


def beside(draw: random.Random, sent: Sent) -> str:
    name = draw.choice(list(sent.weights))
    weight = sent.weights[name]
    wide = Array(np.stack([weight, weight]))
    if draw.random() < 0.3:
        sent.arrays[f"control/{name}"] = wide
        return "the server sends"
    key = draw.choice([FIXED, STATISTICS, "more"])
    named = draw.choice([name, "other", "../x"])
    sent.change = lambda content: content.__setitem__(key, ArrayRecord({named: wide}))
    return "which is not a|of which its plan says nothing"


def states(draw: random.Random, sent: Sent) -> str:
    wrong = [
        "[",
        "[[0, 1]]",
        '[[0, "1", "' + "a" * 64 + '"]]',
        json.dumps([[client, 1, "a" * 64] for client in (0, 2)]),  # of both, or the other one trains
        '[[0, 1, "../../x"]]',
        f'[[0, -1, "{"a" * 64}"]]',
        '[["../x", 1, "a"]]',
        "[" * 100_000,
    ]
    sent.change = lambda content: content.__setitem__(STATES, ConfigRecord({STATES: draw.choice(wrong)}))
    return "a message's states|LostStateError|the hash of a state"


def vocabulary(draw: random.Random, sent: Sent) -> str:
    wrong: list[Any] = [
        ConfigRecord({"labels": ["cat", f"{SECRET}/x"]}),
        ConfigRecord({"labels": ["x"] * 20_000}),
        ConfigRecord({"labels": ["x" * 100_000]}),
        ConfigRecord({"labels": [1.5]}),
        ConfigRecord({"labels": "cat"}),
        ConfigRecord({"tokens": ["a", "b"], "merges": ["a", "c"]}),
        ConfigRecord({"tokens": [*SPECIAL, "a"], "merges": ["a", "b"]}),
        ConfigRecord({"tokens": [*SPECIAL, "a"], "merges": ["a"]}),
        ConfigRecord({"more": "a"}),
        MetricRecord({"labels": 1}),
    ]
    sent.change = lambda content: content.__setitem__(VOCABULARY, draw.choice(wrong))
    return "a message's |takes no labels that machines have agreed on|tokens must be"


def words(draw: random.Random, sent: Sent) -> str:
    key = draw.choice(["local-epochs", "batch-size", "learning-rate", PROXIMAL_MU])
    sent.words[key] = draw.choice(
        [-1.0, float("nan"), "os.system", b"\x80"] if key != PROXIMAL_MU else ["1", b""]
    )
    if draw.random() < 0.2:
        sent.words = {"local-epochs": draw.choice([1e6, 1e300]), PROXIMAL_MU: 0.1}
    return "must be"


def records(draw: random.Random, sent: Sent) -> str:
    key = draw.choice([ROUND, PLAN, "record-0", "record-1"])
    wrong = draw.choice([None, MetricRecord({"a": 1}), ArrayRecord({}), ConfigRecord({"a": "b"})])

    def change(content: RecordDict) -> None:
        if wrong is None:
            del content[key]
        else:
            content[key] = wrong

    sent.change = change
    return (
        "a message must hold|a client is asked by|a message's plan|a request's round|the server sends"
        "|the strategy must send"
    )


MUTATIONS: tuple[Mutation, ...] = (
    code,
    no_rule,
    package_of_environments,
    argument_of_environments,
    place_in_dataset,
    place_of_data,
    backbone,
    place_in_options,
    number,
    value,
    optimizer,
    device,
    long_text,
    state_path,
    round_info,
    plan_text,
    clients,
    weights,
    bytes_of_weights,
    not_finite,
    beside,
    states,
    vocabulary,
    words,
    records,
)
EITHER = (
    code,
    place_in_dataset,
    state_path,
    round_info,
    plan_text,
    clients,
    weights,
    bytes_of_weights,
    states,
)
"""Those that are seen whatever clients are asked to do."""
