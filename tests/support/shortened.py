"""The scenarios of simulations/configs, cut to seconds."""

from places import CONFIGS

from models.core.config import RunConfig, Value, parse_options
from models.core.toml import quoted
from models.data.datasets import find_source
from simulations.scenario import load_scenario

SCENARIOS = sorted(CONFIGS.glob("*.toml"), key=lambda path: path.stem)

LIKE_OTHERS = (
    "clip",
    "contrastive",
    "detect",
    "dialogue",
    "lstm-forecast",
    "masked-lm",
    "masked-pixels",
    "multimodal",
    "seq2seq",
    "text-classify",
)
"""Tasks of one objective and one kind of state, as others have: some tests have them in `make bars` alone."""


def shorter(run_config: RunConfig) -> dict[str, Value]:
    """Return what to override: two rounds of two clients, each of which draws eight rows."""
    options, dataset = str(run_config["task-options"]), str(run_config["dataset"])
    if run_config["task"] == "dqn":  # whose rows are environments: few steps, some of which it learns from
        given = parse_options("task-options", options)
        options = quoted({**given, "steps": 40, "warmup": 100})
        if dataset.startswith("gym:ALE/"):  # whose episodes are long, and whose frames are large
            options = quoted({**given, "steps": 9, "warmup": 10, "capacity": 200, "hidden_size": 8})
            dataset = f"{dataset.partition('?')[0]}?envs=1&episodes=1&max_episode_steps=10"
    data = str(run_config["dataset-options"])
    if run_config["dataset"] == "numbers-dates":  # an untrained network translates to the last limit
        data = "train_pairs = 40, test_pairs = 4"
    if run_config["dataset"] == "chatterbot":
        data = "context_turns = 1, max_bytes = 30"
        options = f"{options}, longest = 10"
    if run_config["dataset"] == "digit-scenes":
        data = "images_per_client = 8, test_images = 8"
    if str(run_config["dataset"]).startswith("kitti:"):  # a network and pictures that want a GPU
        options, data = "", "width = 64, height = 32, ignore = ['Van', 'Truck']"
    packaged = find_source(str(dataset)).packaged
    return {
        "task-options": options,
        "dataset": dataset,
        "dataset-options": data,
        # Of the few pictures that a test writes none can be set apart.
        "validation-fraction": run_config["validation-fraction"] if packaged else 0.0,
        "num-server-rounds": 2,  # the second one goes on from what clients remember
        "clients-per-round": min(2, int(run_config["num-clients"])),
        "examples-per-client": 8,
        "batch-size": 4,
        "local-epochs": 1,
        "evaluate-every": 0,  # at the end alone
        "draw-every": 0,
        "device": "cpu",
        "client-gpus": 0.0,
        "num-workers": 1,
    }


def toy(task: str) -> dict[str, Value]:
    """Return the task's first scenario that is federated and needs no files, shortened."""
    for path in SCENARIOS:
        scenario = load_scenario(path)
        federated = int(scenario["num-clients"]) > 1
        if scenario["task"] == task and federated and find_source(str(scenario["dataset"])).packaged:
            return scenario | shorter(scenario)
    raise LookupError(f"simulations/configs has no federated scenario of {task} with a packaged dataset")
