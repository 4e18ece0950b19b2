"""A strategy's memory goes to disk and comes back, and the strategy goes on as if nothing had been."""

import json
import random
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Strategy
from required_options import REQUIRED
from scripted_grid import ScriptedGrid

from models.core.config import Value, parse_options
from models.core.errors import UserError
from server.checkpoint import Checkpoint, CheckpointFolder
from simulations.runtime.in_process import run_in_process
from strategies.algorithms.fedprox import FedProx
from strategies.conformance import Candidate
from strategies.declaration import Declaration
from strategies.memory import NotSavedError, capture, restore
from strategies.registry import STRATEGIES

Make = Callable[..., dict[str, Value]]


class Remembering(FedAvg):
    """Keeps what a test gives it, but for a function."""

    declaration = Declaration(not_kept=("function",))

    def __init__(self, memory: Any = None) -> None:
        super().__init__()
        self.memory = memory
        self.function = lambda: memory


def through_disk(before: Strategy, after: Strategy, folder: Path) -> None:
    """Give `after` the memory of `before`, as a resumed run does."""
    tree, arrays = capture(before)
    weights = {"w": torch.zeros(1)}
    checkpoints = CheckpointFolder(folder)
    checkpoints.save(Checkpoint(1, weights, strategy=tree, strategy_arrays=arrays))
    loaded = checkpoints.load_newest(weights)
    assert loaded is not None
    restore(after, loaded.strategy, loaded.strategy_arrays)


def equal(a: Any, b: Any) -> bool:
    """Whether two memories are the same in type and value, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        if isinstance(a, defaultdict) and a.default_factory is not b.default_factory:
            return False
        return equal(list(a), list(b)) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, deque) and a.maxlen != b.maxlen:
        return False
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, set | frozenset):
        return equal(sorted(a), sorted(b))
    if isinstance(a, np.ndarray | np.generic):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b or (a != a and b != b))


RNG = np.random.default_rng(0)
Pair = namedtuple("Pair", "a b")


class Nested:
    """Holds a class of its own."""

    class Pair(NamedTuple):
        a: int
        b: int


@pytest.mark.parametrize(
    "memory",
    [
        None,
        True,
        3,
        0.1 + 0.2,
        float("inf"),
        float("nan"),
        "text",
        [1, [2.5, "x"], None],
        (1, (2, [3])),
        {"a": {"b": [1, {"c": 2}]}, "d": {}},
        {"array": "not an array", "tuple": [1]},
        RNG.standard_normal((2, 3)),
        RNG.standard_normal((2, 3)).astype(np.float32).T,
        np.arange(4, dtype=np.int32),
        np.array([True, False]),
        np.array(2.5),
        np.zeros((0, 3)),
        [np.arange(2), {"x": np.ones(1)}],
        np.float32(0.1),
        np.int64(7),
        {"a/b": np.ones(1), "a": {"b": np.zeros(2)}},
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        {"layer.0.weight": torch.arange(3)},
        np.float64(0.1),
        np.uint64(2**63),
        b"bytes",
        bytearray(b"more"),
        1 + 2j,
        Counter({3: 2, "x": 1}),
        Counter(),
        defaultdict(list, {1: [2], 3: []}),
        defaultdict(None, {"a": 1}),
        defaultdict(Counter, {0: Counter([1, 1])}),
        OrderedDict([("b", 1), ("a", np.ones(2))]),
        deque([1, "x", [2]], maxlen=3),
        deque([np.ones(1)]),
        {1, 2, 3},
        {(1, "a"), (2, "b")},
        frozenset({1.5}),
        Pair(1, [np.ones(2)]),
        [Nested.Pair(1, 2)],
        {1.5: 1, "a": 2, None: 3, (1, 2): [4]},
        {True: 1, False: 0},
        {np.int64(3): "three"},
        ConfigRecord({"a": 1, "b": [1.0, 2.0], "c": b"x"}),
        MetricRecord({"a": 1, "b": [1.5]}),
    ],
    ids=lambda memory: type(memory).__name__,  # a set has another order in the next process
)
def test_memory_comes_back_with_its_types(memory: Any, tmp_path: Path) -> None:
    after = Remembering()
    function = after.function
    through_disk(Remembering(memory), after, tmp_path)
    assert equal(after.memory, memory)
    assert after.function is function  # what a constructor sets stays


def test_what_is_kept_by_client_number_comes_back_by_client_number(tmp_path: Path) -> None:
    after = Remembering()
    through_disk(Remembering({3: np.ones(2), 11: np.zeros(2)}), after, tmp_path)
    assert list(after.memory) == [3, 11]
    assert after.memory[3].tolist() == [1.0, 1.0]


def test_memories_that_are_one_array_can_be_saved(tmp_path: Path) -> None:
    shared, after = torch.ones(2), Remembering()
    through_disk(Remembering([shared, shared]), after, tmp_path)
    assert [tensor.tolist() for tensor in after.memory] == [[1.0, 1.0], [1.0, 1.0]]


GENERATORS = {
    "PCG64": lambda: np.random.default_rng(3),
    "MT19937": lambda: np.random.Generator(np.random.MT19937(3)),
    "Philox": lambda: np.random.Generator(np.random.Philox(3)),
    "SFC64": lambda: np.random.Generator(np.random.SFC64(3)),
    "PCG64DXSM": lambda: np.random.Generator(np.random.PCG64DXSM(3)),
    "RandomState": lambda: np.random.RandomState(3),
    "random": lambda: random.Random(3),
    "torch": lambda: torch.Generator().manual_seed(3),
}


def draws(generator: Any) -> list[float]:
    if isinstance(generator, torch.Generator):
        return torch.randn(3, generator=generator).tolist()
    if isinstance(generator, random.Random):
        return [generator.gauss(0, 1) for _ in range(3)]
    return [float(generator.normal()) for _ in range(3)]


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    before, after = GENERATORS[name](), Remembering()
    first = draws(before)  # an odd number, so that a Gaussian is in store
    through_disk(Remembering(before), after, tmp_path)
    assert type(after.memory) is type(before)
    assert draws(after.memory) == draws(before) != first


def test_a_generator_spawns_as_it_would_have(tmp_path: Path) -> None:
    before, after = np.random.default_rng(3), Remembering()
    before.spawn(2)
    through_disk(Remembering(before), after, tmp_path)
    assert draws(after.memory.spawn(1)[0]) == draws(before.spawn(1)[0])


def test_what_is_held_twice_comes_back_as_one(tmp_path: Path) -> None:
    shared: list[int] = [1]
    after = Remembering()
    through_disk(Remembering({"a": shared, "b": [shared], "c": [1]}), after, tmp_path)
    memory = after.memory
    assert memory == {"a": [1], "b": [[1]], "c": [1]}
    assert memory["a"] is memory["b"][0]
    assert memory["a"] is not memory["c"]


def test_a_namedtuple_is_looked_up_and_nothing_is_imported() -> None:
    for module, qualname, fields in (
        ("antigravity", "Pair", ["a", "b"]),
        ("os", "system", ["a", "b"]),
        (__name__, "Pair", ["b", "a"]),
        (__name__, "Evil", ["a", "b"]),
    ):
        node = {"namedtuple": [module, qualname, fields, [1, 2]]}
        with pytest.raises(ValueError, match=f"a namedtuple {qualname}, which is not found in {module}"):
            restore(Remembering(), {"strategy": {"memory": node}}, {})


def test_what_lies_in_slots_is_remembered(tmp_path: Path) -> None:
    class Slotted(Remembering):
        __slots__ = ("times",)
        times: Counter[int]

    before, after = Slotted(), Slotted()
    before.times = Counter([1])
    through_disk(before, after, tmp_path)
    assert after.times == Counter([1])


def test_a_misspelt_name_of_what_is_not_kept_is_refused() -> None:
    class Misspelt(Remembering):
        declaration = Declaration(not_kept=("fuction",))

    refused = r"^Misspelt declares not_kept = \('fuction',\) and has no such .*: did you mean 'function'\?$"
    with pytest.raises(NotSavedError, match=refused):
        capture(Misspelt())


def test_records_come_back(tmp_path: Path) -> None:
    after = Remembering()
    arrays = {"b": Array(np.ones(2, np.float32)), "a": Array(np.array(3.0))}
    through_disk(Remembering(ArrayRecord(arrays)), after, tmp_path)
    assert isinstance(after.memory, ArrayRecord)
    assert list(after.memory) == ["b", "a"]
    assert after.memory["b"].numpy().dtype == np.float32
    assert after.memory["a"].numpy() == 3.0


def test_the_tree_is_json_and_nothing_that_runs() -> None:
    tree, arrays = capture(Remembering({"kept": 1}))
    assert json.loads(json.dumps(tree))["strategy"]["memory"] == {"dict": {"kept": 1}}
    assert arrays == {}


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("run",))


class Letter(StrEnum):
    A = "a"


def within() -> type:
    return namedtuple("Within", "a")


class Wider(dict[str, int]):
    """A dict, and more."""


LOOP: list[Any] = [1]
LOOP.append({"again": LOOP})

CANNOT_BE_HELD = [
    (Evil(), "memory is of type Evil"),
    ({Evil()}, r"memory\[0\] is of type Evil"),
    (len, "memory is of type builtin_function_or_method"),
    (Letter.A, "memory is an enum, Letter"),
    ({"kept": 1, "left": {"deeper": [0, {Evil()}]}}, r"memory.left.deeper\[1\]\[0\] is of type Evil"),
    ([1, (2, Evil())], r"memory\[1\]\[1\] is of type Evil"),
    ({3: {"x": Evil()}}, r"memory\[3\].x is of type Evil"),
    (defaultdict(lambda: 3), r"memory is a defaultdict of <lambda> \(of bool, .* could be kept\)"),
    (defaultdict(Evil), r"memory is a defaultdict of Evil \(of .*\)"),
    (within()(1), r"memory is a namedtuple of Within, which is not found in test_memory"),
    ({Evil(): 1}, "memory's key 0 is of type Evil"),
    (Wider(a=1), "memory is of type Wider"),
    (np.ma.masked_array([1.0], [True]), "memory is of type MaskedArray"),
    (torch.nn.Parameter(torch.ones(1)), "memory is of type Parameter"),
    (
        torch.ones(1, requires_grad=True),
        r"memory is a tensor of torch.float32, torch.strided, with a gradient",
    ),
    (random.SystemRandom(), "memory is of type SystemRandom"),
    (LOOP, r"memory\[1\].again holds itself"),
    ([FedProx(0.1)], r"memory\[0\] is of type FedProx"),
    (np.array([Evil()]), "memory is an array of object"),
    (np.array(["text"]), "memory is an array of <U4"),
    (np.zeros(2, complex), "memory is an array of complex128"),
    (torch.zeros(2, 2).to_sparse(), "memory is a tensor of torch.float32, torch.sparse_coo"),
]


@pytest.mark.parametrize(("memory", "where"), CANNOT_BE_HELD, ids=[where for _, where in CANNOT_BE_HELD])
def test_what_no_checkpoint_can_hold_is_refused_by_name(memory: Any, where: str) -> None:
    with pytest.raises(
        NotSavedError, match=rf"^Remembering\.{where}, which no checkpoint can hold: "
    ) as error:
        capture(Remembering(memory))
    assert "\n" not in str(error.value)
    assert 'leave memory out of checkpoints with Declaration(not_kept=("memory",))' in str(error.value)


def test_it_is_found_within_wrapped_strategies() -> None:
    around = flower.DifferentialPrivacyClientSideFixedClipping(Remembering({len}), 1.0, 1.0, 3)
    refused = (
        r"^DifferentialPrivacyClientSideFixedClipping\.strategy\.memory\[0\] is of type builtin_.*memory out"
    )
    with pytest.raises(NotSavedError, match=refused):
        capture(around)


def test_a_container_in_the_class_body_is_refused() -> None:
    """It would go on over runs, and be lost over a resume."""

    class Shared(Remembering):
        history: ClassVar[list[int]] = []

    with pytest.raises(NotSavedError, match=r"^Shared\.history is a list in the body of Shared, which no"):
        capture(Shared())

    class Fixed(Shared):
        declaration = Declaration(not_kept=("history", "function"))

    capture(Fixed())


def test_what_is_declared_as_not_to_be_kept_is_as_the_constructor_sets_it(tmp_path: Path) -> None:
    class Half(Remembering):
        declaration = Declaration(not_kept=("function", "cache"))

        def __init__(self, memory: Any = None) -> None:
            super().__init__(memory)
            self.cache: set[int] = set()

    before, after = Half([1]), Half()
    before.cache.add(1)
    through_disk(before, after, tmp_path)
    assert (after.memory, after.cache) == ([1], set())


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_can_be_saved_before_its_first_round(name: str) -> None:
    options = parse_options("strategy-options", REQUIRED.get(name, ""))
    tree, _ = capture(Candidate(STRATEGIES[name], options).build())
    assert "train_metrics_aggr_fn" not in json.dumps(tree)


def test_a_tree_of_a_later_version_is_refused() -> None:
    with pytest.raises(ValueError, match="holds a 'graph', which this version of polyfed does not know"):
        restore(Remembering(), {"strategy": {"memory": {"graph": []}}}, {})


class AtOnce(FedAvg):
    """Remembers what cannot be saved from the start."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen = {object()}


class Late(FedAvg):
    """Remembers it from the third round on."""

    def configure_train(self, server_round: int, *others: Any) -> Any:
        if server_round == 3:
            self.history = {"rounds": [object()]}
        return super().configure_train(server_round, *others)


def test_a_run_that_could_not_be_resumed_is_not_begun(tiny: Make, tmp_path: Path) -> None:
    config = tiny(strategy="test_memory:AtOnce")
    with pytest.raises(
        UserError, match=r"^AtOnce.seen\[0\] is of type object, which no .* or set checkpoint-every = 0$"
    ):
        run_in_process(config)
    run_in_process(
        {**config, "checkpoint-every": 0, "num-server-rounds": 1, "run-dir": str(tmp_path / "without")}
    )


def test_what_comes_up_later_ends_the_run_at_its_checkpoint(tiny: Make, tmp_path: Path) -> None:
    config = tiny(strategy="test_memory:Late", num_server_rounds=4, num_clients=2, examples_per_client=16)
    with pytest.raises(
        NotSavedError, match=r"^Late\.history\.rounds\[0\] is of type object, which no checkpoint"
    ):
        run_in_process(config)
    folder = tmp_path / "run"
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], "Late.history.rounds[0] is of type object" in result["reason"]) == (
        "failed",
        True,
    )
    assert [path.stem for path in sorted((folder / "checkpoints").iterdir())] == [
        "round-000001",
        "round-000002",
    ]


def replies(values: list[float]) -> list[Message]:
    """Return the replies of clients with these weights, one example each."""
    ScriptedGrid({})  # lets messages be made here
    contents = [
        RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(np.array([value, -value], np.float32))}),
                "metrics": MetricRecord({"num-examples": 1, "loss": value}),
            }
        )
        for value in values
    ]
    asked = [Message(RecordDict(), client, "train") for client in range(len(values))]
    return [Message(content, reply_to=message) for content, message in zip(contents, asked, strict=True)]


def rounds(strategy: Strategy, weights: np.ndarray, values: list[float]) -> np.ndarray:
    """Run a round for each of the values; return the weights after the last."""
    grid = ScriptedGrid({client: lambda _: None for client in range(3)})
    for value in values:
        arrays = ArrayRecord({"w": Array(weights)})
        list(strategy.configure_train(1, arrays, ConfigRecord(), grid))
        new, _ = strategy.aggregate_train(1, replies([value, 2 * value, 3 * value]))
        assert new is not None
        weights = new["w"].numpy().astype(np.float32)
    return weights


def clipped() -> Strategy:
    """Return a wrapped strategy, whose memory lies one level deeper."""
    inner = flower.FedAdam(eta=0.1)
    return flower.DifferentialPrivacyServerSideAdaptiveClipping(
        inner, noise_multiplier=0.0, num_sampled_clients=3, clipped_count_stddev=0.0
    )


MAKERS = {
    "FedAvgM": lambda: flower.FedAvgM(server_momentum=0.9, server_learning_rate=0.5),
    "FedAdam": lambda: flower.FedAdam(eta=0.1),
    "FedAdagrad": lambda: flower.FedAdagrad(eta=0.1),
    "FedYogi": lambda: flower.FedYogi(eta=0.1),
    "adaptive clipping over FedAdam": clipped,
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_restored_strategy_goes_on_as_if_nothing_had_been(name: str, tmp_path: Path) -> None:
    start = np.array([0.5, -1.0], np.float32)
    before = MAKERS[name]()
    halfway = rounds(before, start, [1.0, 0.3])
    after = MAKERS[name]()
    through_disk(before, after, tmp_path)
    expected = rounds(before, halfway, [0.7, -0.2])
    np.testing.assert_array_equal(rounds(after, halfway, [0.7, -0.2]), expected)
    forgetful = rounds(MAKERS[name](), halfway, [0.7, -0.2])
    assert not np.array_equal(forgetful, expected), "it remembers nothing: the test shows nothing"
