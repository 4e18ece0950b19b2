"""The cohort grid under secure aggregation: it sees what nodes reply as one sum, and nothing before that.

A round of training takes four exchanges with the nodes: their keys, the shares that they deal, the training
itself, and the shares that open the sum. A node that is lost before it has sent its vector costs its clients.
Where fewer than a threshold stay, nothing is opened, and all clients of the round have failed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from logging import WARNING
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from models.core.errors import UserError
from models.core.log import log
from models.core.tracebacks import line_of, plain_line
from server.cohort import OUT_OF_TIME, CohortGrid
from server.cohort_result import Outcome
from server.exchange import one_line
from server.masked_checks import check_together, checked_masked
from server.node_replies import read_reply
from server.opened_sums import OpenedSum, OpenedSums
from server.reply_checks import Asked
from server.requests import Wave
from server.secure_round import SecureRound, StoppedError
from server.tally import Sums
from server.traffic import Traffic, left_in
from strategies.secure import wire
from strategies.secure.keys import KEY
from strategies.secure.masked_reply import Together, together_of
from strategies.wire.records import forms_of
from strategies.wire.reply import NodeReply
from strategies.wire.request import RoundInfo

Said = Iterator[tuple[int, ConfigRecord | str]]
"""Nodes, and what each tells at a stage, or why it tells nothing."""


class SecureCohortGrid(CohortGrid):
    """A cohort grid whose nodes mask what they reply."""

    def __init__(
        self,
        *given: Any,
        threshold: float,
        metrics: Sequence[str],
        patience: float,
        opened: OpenedSums,
        **more: Any,
    ) -> None:
        """Take, beside the cohort grid's own, the share of nodes that must stay, and names of metrics.

        `patience` is how many seconds a node may take for a stage in which it does not train, and `opened`
        the sums that the run has opened.
        """
        super().__init__(*given, **more)
        self.threshold, self.metrics, self.patience = threshold, tuple(metrics), patience
        self.opened = opened
        self._trained = 0
        """The round that was trained last."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Refuse: every client's reply would be its own."""
        raise self._refused()

    def _exchange_wave(
        self,
        wave: Wave,
        info: RoundInfo,
        timeout: float,
        traffic: Traffic,
        statistics: ArrayRecord | None,
        enough: float,
    ) -> Outcome:
        """Ask clients once, and return what came of it: one sum."""
        if not wave.training or self._trained == info.server_round:
            raise self._refused()
        self._trained = info.server_round
        info = replace(info, repeated=wave.repeated)
        again = self.opened.of(info.server_round) is not None
        together, parts = None, [NodeReply.of_failed_node(list(wave.requests), OUT_OF_TIME)]
        if timeout > 0:
            together, parts = self._train(wave, info, timeout, traffic, statistics)
        self.take_down(parts, info.server_round)
        sums = Sums(together.total, together.statistics) if together else None
        return Outcome.of(wave, parts, sums, together, again=again)

    def _refused(self) -> UserError:
        return UserError(
            f"strategy {self.requests.strategy} asks for what single clients reply, which secure-aggregation "
            "hides: it may ask them to train, once a round"
        )

    def _train(
        self,
        wave: Wave,
        info: RoundInfo,
        timeout: float,
        traffic: Traffic,
        statistics: ArrayRecord | None,
    ) -> tuple[Together | None, list[NodeReply]]:
        """Return what the nodes' clients have trained together, or None, and what became of each node."""
        self.node_registry.update(self.grid)
        connected = list(self.node_registry.accepted)
        free = self.busy.wait_for_free(connected, timeout + self.round_grace)
        hosted = self.node_registry.assign(wave.requests, free)
        sent_to = {client for clients in hosted.values() for client in clients}
        left_out = self._left_out(sorted(wave.requests.keys() - sent_to), connected)
        starts = {node: self.node_registry.start_of(node) for node in hosted}
        partitions = self.node_registry.partitions
        before = self.opened.of(info.server_round)
        secure = SecureRound.begin(wave, info, timeout, hosted, partitions, starts, self.threshold, before)
        together = None
        try:
            secure.expect_as_before(secure.hosted)
            self._agree(secure, traffic)
            self._collect(secure, traffic, statistics)
            together = self._open(secure, traffic)
        except StoppedError as error:
            secure.stop(str(error))
        return together, [*secure.parts.values(), *secure.aside, *left_out]

    def _agree(self, secure: SecureRound, traffic: Traffic) -> None:
        """Pass on the nodes' keys, and take the shares that they deal."""
        if len(secure.hosted) > wire.MOST_NODES:
            raise StoppedError(
                f"secure aggregation adds up what at most {wire.MOST_NODES} nodes reply, and the clients of "
                f"round {secure.info.server_round} live on {len(secure.hosted)}: lower clients-per-round"
            )
        if len(secure.hosted) < 2:
            raise StoppedError(
                "secure aggregation adds up what several nodes reply, and the clients of round "
                f"{secure.info.server_round} that can be asked live on {len(secure.hosted)}"
            )
        session, places = secure.session, secure.places
        begin = wire.asked(
            wire.BEGIN,
            session.name,
            numbers=session.numbers,
            threshold=session.threshold,
            round=secure.info.server_round,
        )

        def take_keys(node: int, record: ConfigRecord) -> None:
            keys = [wire.text(record, key, KEY) for key in ("mask_key", "seal_key")]
            session.take_keys(places[node], *keys)

        def take_dealt(node: int, record: ConfigRecord) -> None:
            session.take_dealt(places[node], wire.dealt_of(record))

        _take(secure, self._stage(secure, secure.staying, begin, traffic), take_keys)
        secure.expect(secure.staying, "told their keys")
        deal = wire.asked(wire.DEAL, session.name, mask_keys=session.mask_keys, seal_keys=session.seal_keys)
        _take(secure, self._stage(secure, secure.staying, deal, traffic), take_dealt)
        secure.expect(secure.staying, "dealt shares")

    def _collect(self, secure: SecureRound, traffic: Traffic, statistics: ArrayRecord | None) -> None:
        """Have the nodes train, and add up their masked vectors."""
        info, wait = replace(secure.info, seconds_left=secure.seconds), secure.seconds + self.round_grace
        wanted = forms_of(statistics) if statistics else {}
        messages = {}
        for node in secure.staying:
            messages[node] = self.pack(node, secure.wave, secure.hosted[node], info, traffic, statistics)
            sealed = secure.session.sealed_for(secure.places[node])
            messages[node].content[wire.SECURE] = wire.asked(
                wire.MASK, secure.session.name, sealed=sealed, metrics=self.metrics
            )
        for node, returned in self._answers(secure, messages, wait):
            if isinstance(returned, str):
                secure.drop(node, returned)
                continue
            asked = self._asked(secure, node, wanted)
            found: list[Any] = []

            def check(content: RecordDict, asked: Asked = asked, found: list[Any] = found) -> NodeReply:
                reply, masked = checked_masked(content, asked)
                found.append(masked)
                return reply

            hosted = secure.hosted[node]
            part = read_reply(returned, hosted, traffic, check, wait, simulated=self.busy.simulated)
            secure.parts[node] = part.on_node(node)
            if part.replies:
                secure.add(node, *found[0])
            del returned, found

    def _open(self, secure: SecureRound, traffic: Traffic) -> Together:
        """Have the masks taken off the sum, and return what it says."""
        usual, alive = secure.settle()
        self._note_opened(secure, alive)
        session, places = secure.session, sorted(secure.places[node] for node in alive)
        dead = sorted(session.dealt.keys() - set(places))
        request, wrong = wire.asked(wire.OPEN, session.name, alive=places, dead=dead), []
        for node, said in self._stage(secure, alive, request, traffic):
            try:
                if isinstance(said, str):
                    raise ValueError(said)
                session.take_told(secure.places[node], wire.told_of(said), places)
            except Exception as error:  # a node may send anything; its vector counts all the same
                wrong.append(f"node {secure.number(node)}: {_said(error)}")
                log(
                    WARNING,
                    "Node %d does not help to open the sum of round %d: %s",
                    secure.number(node),
                    secure.info.server_round,
                    plain_line(_said(error)),
                )
        asked, vector = self._asked(secure, alive[0]), secure.vectors[usual]
        clients = sum(asked.times(each.client) for node in alive for each in secure.parts[node].replies)
        try:
            session.unmask(vector, places)
            together = together_of(usual, vector, secure.info.weighted_by)
            check_together(together, clients, secure.info.weighted_by, self.expected)
        except ValueError as error:
            raise StoppedError(
                "; ".join(
                    [f"the sum of all nodes cannot be used: {error}", *session.suspects().values(), *wrong]
                )
            ) from error
        if not together.weight:
            why = f"it has no examples, as all that answered ({secure.info.weighted_by} is 0)"
            raise StoppedError(why)
        # Strategies go by the order of weights.
        order = dict.fromkeys([*asked.forms, *together.total.shapes])
        return replace(together, total=together.total.in_order_of(order))

    def _note_opened(self, secure: SecureRound, alive: Sequence[int]) -> None:
        """Note of whom the sum is, so that a resumed run opens the same; raise StoppedError for another."""
        clients = {
            node: sorted(each.client for each in secure.parts[node].replies)
            for node in sorted(alive, key=secure.number)
        }
        secure.expect_as_before(clients)
        if secure.before is None:
            named = {secure.number(node): hosted for node, hosted in clients.items()}
            self.opened.note(secure.info.server_round, OpenedSum(secure.session.threshold, named))

    def _asked(self, secure: SecureRound, node: int, statistics: Mapping[str, Any] | None = None) -> Asked:
        given = secure.info.weighted_by, statistics or {}, self.requests.weights, self.expected
        return Asked(secure.wave, secure.hosted[node], *given)

    def _stage(
        self, secure: SecureRound, nodes: Sequence[int], record: ConfigRecord, traffic: Traffic
    ) -> Said:
        """Ask nodes for something other than training."""
        messages = {
            node: Message(RecordDict({wire.SECURE: record}), node, MessageType.QUERY) for node in nodes
        }
        for node, returned in self._answers(secure, messages, self.patience):
            if isinstance(returned, str):
                yield node, returned
            elif returned.has_error():
                yield node, one_line(returned.error.reason)
            else:
                try:
                    traffic.left += left_in(returned.content)
                    found: ConfigRecord | str = wire.record_of(returned.content)
                except Exception as error:  # a node may send anything
                    found = _said(error)
                yield node, found

    def _answers(
        self, secure: SecureRound, messages: Mapping[int, Message], wait: float
    ) -> Iterator[tuple[int, Message | str]]:
        """Yield what each node answers, or why it does not."""
        for node, returned in self.answers(messages, secure.starts, secure.info.server_round, wait):
            yield node, f"its node did not answer within {wait:g} s" if returned is None else returned
            del returned  # it may hold as much as several models, and the next one takes time to come


def _take(secure: SecureRound, answers: Said, use: Callable[[int, ConfigRecord], None]) -> None:
    """Use what nodes tell; those that tell nothing that can be used drop out."""
    for node, said in answers:
        try:
            if isinstance(said, str):
                raise ValueError(said)
            use(node, said)
        except Exception as error:  # a node may send anything
            secure.drop(node, f"its node takes no part in secure aggregation: {_said(error)}")


def _said(error: Exception) -> str:
    return str(error) if type(error) is ValueError else line_of(error)
