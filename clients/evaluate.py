"""What one client does when it is asked to evaluate."""

import math
from collections.abc import Sequence

import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from clients.deadline import NEVER, Deadline, interrupted_after, take_turns
from clients.state import ClientStates, personal_model, shared_model
from clients.worker import Worker
from models.core.seeds import generator_for
from models.data.dataset import Examples
from models.task import Metrics
from strategies.rule import PERSONAL
from strategies.wire.reply import METRICS, SUMS, NodeReply
from strategies.wire.request import ClientRequest


def evaluate_one_by_one(
    worker: Worker,
    requests: Sequence[ClientRequest],
    states: ClientStates,
    reply: NodeReply,
    deadline: Deadline = NEVER,
) -> None:
    """Evaluate client after client."""

    def turn(request: ClientRequest, until: Deadline) -> None:
        reply.add(request.client, evaluate_client(worker.of(request.client), request, states, until))

    take_turns(requests, deadline, reply, turn)


def evaluate_client(
    worker: Worker, request: ClientRequest, states: ClientStates, deadline: Deadline = NEVER
) -> RecordDict:
    """Evaluate the server's weights on the examples that the client kept for it; return sums and ratios.

    Under a personalised strategy its own model is evaluated as well, with the same draws. Raises
    FloatingPointError for a metric that is not finite, which the mean over all clients would not be either.
    """
    # After the round's training, the client's newest state is that of this round.
    state = states.load(request.client, before=request.info.server_round + 1)
    models = {"": shared_model(request.given, state.shared)}
    if request.info.personal_rules:
        models[PERSONAL] = personal_model(request.given, state.personal)
    _, examples = worker.examples(request.client)
    content = RecordDict({METRICS: MetricRecord({"num-examples": len(examples)})})
    for prefix, model in models.items():
        worker.put(model)
        with interrupted_after(deadline):
            metrics = _evaluate(worker, request, examples)
        deadline.check()
        sums = {name: [float(total), float(weight)] for name, (total, weight) in metrics.items()}
        content[prefix + SUMS] = ConfigRecord({**sums})
        for name, ratio in worker.task.ratios(metrics).items():
            if not math.isfinite(ratio):
                raise FloatingPointError(f"{prefix}{name} is {ratio} on the client's own examples")
            content.metric_records[METRICS][prefix + name] = ratio
    return content


def _evaluate(worker: Worker, request: ClientRequest, examples: Examples) -> Metrics:
    """Return the metrics of the model that stands ready; none for a client without examples for it."""
    worker.model.eval()
    generator = generator_for(worker.config.seed, "evaluate", request.info.server_round, request.client)
    with torch.no_grad():
        return worker.task.evaluate(worker.model, examples, generator) if len(examples) else {}
