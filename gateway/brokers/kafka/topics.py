"""What is known of each topic, and the questions to the cluster about it.

Only topics that somebody published to are known. A missing one is remembered for a second, so
that a misspelt name costs one question a second and answers at once in between.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator

from gateway.brokers.base import Refused, Unavailable
from gateway.brokers.kafka.connection import Cluster, TopicView
from gateway.brokers.kafka.errors import CLIENT_ERRORS, Verdict, detail_of, verdict_of
from gateway.brokers.kafka.lanes import Lane, Topic

ASK_WITHIN = 0.9
"""Seconds for one question about a topic: a publish to a missing one ends within the second."""

_VERDICT_FOR = 1.0
_ASK_AGAIN = 0.2
_LIMIT_FOR = 5.0
_MAX_TOPICS = 4096
_LEGAL = re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}\Z")
_LEADER_NOT_AVAILABLE = 5
_DENIED = 29
_INVALID = Verdict(Refused, "invalid_destination")
_NO_ANSWER = Verdict(Unavailable, "broker_down")


def is_publishable(topic: str) -> bool:
    """Whether Kafka can have a topic of this name."""
    return _LEGAL.match(topic) is not None


class Directory:
    """The topics in use, and the questions to the cluster about them."""

    def __init__(
        self,
        cluster: Cluster,
        on_known: Callable[[Topic], None],
        on_verdict: Callable[[Topic, Verdict, str], None],
        on_trouble: Callable[[], None],
    ) -> None:
        """`on_known`: there are leaders. `on_verdict`: there is no such topic, and why."""
        self._cluster = cluster
        self._on_known = on_known
        self._on_verdict = on_verdict
        self._on_trouble = on_trouble
        self._topics: dict[str, Topic] = {}
        self._refreshing: asyncio.Task[None] | None = None

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._topics.values())

    def topic(self, name: str) -> Topic:
        """What is known of `name`; a topic that is new here has no lanes yet."""
        topic = self._topics.get(name)
        if topic is None:
            if len(self._topics) >= _MAX_TOPICS:
                self._forget()
            topic = self._topics[name] = Topic(name)
            if not is_publishable(name):
                topic.verdict = _INVALID
                topic.verdict_until = float("inf")
        return topic

    def ask(self, topic: Topic) -> None:
        """Find out about `topic` in the background, unless that is under way."""
        if topic.asking is None:
            topic.asking = asyncio.ensure_future(self._ask(topic))

    def refresh(self) -> None:
        """Ask again about every topic that is known to exist, unless that is under way."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.ensure_future(self._refresh())

    async def refreshed(self) -> None:
        """Refresh, and wait for the answer."""
        self.refresh()
        if self._refreshing is not None:
            await asyncio.shield(self._refreshing)

    def learn_limit(self, topic: Topic) -> None:
        """Read the topic's size limit again, not more often than every few seconds."""
        now = asyncio.get_running_loop().time()
        if topic.asking is None and topic.limit_until < now:
            topic.asking = asyncio.ensure_future(self._learn_limit(topic))

    def tasks(self) -> list[asyncio.Task[None]]:
        """Every question that is under way."""
        tasks = [topic.asking for topic in self._topics.values()]
        return [task for task in [*tasks, self._refreshing] if task is not None]

    async def _ask(self, topic: Topic) -> None:
        try:
            view = await self._settled_view(topic)
            if view.error == 0:
                # Before there are lanes: what is parked must not be overtaken meanwhile.
                await self._read_limits([topic])
                self._apply(view)
                self._on_known(topic)
                return
            self._decide(topic, verdict_of(view.error), detail_of(view.error))
        except CLIENT_ERRORS as error:
            self._decide(topic, _NO_ANSWER, type(error).__name__)
            self._on_trouble()
        finally:
            topic.asking = None

    async def _settled_view(self, topic: Topic) -> TopicView:
        """Ask until the answer is final: a new topic has no leader at first, and a missing
        permission must outlast one refresh."""
        denied = False
        while True:
            (view,) = await self._cluster.describe([topic.name], ASK_WITHIN)
            forming = view.error == _LEADER_NOT_AVAILABLE or (view.error == 0 and not view.leaders)
            if not forming and (view.error != _DENIED or denied):
                return view
            if forming and not topic.parked:
                return TopicView(topic.name, _LEADER_NOT_AVAILABLE)
            denied = view.error == _DENIED
            await asyncio.sleep(_ASK_AGAIN)

    async def _refresh(self) -> None:
        known = [topic.name for topic in self._topics.values() if topic.lanes]
        if not known:
            return
        try:
            views = await self._cluster.describe(known, ASK_WITHIN)
        except CLIENT_ERRORS:
            self._on_trouble()
            return
        for view in views:
            self._apply(view)

    def _apply(self, view: TopicView) -> None:
        topic = self._topics.get(view.name)
        if topic is None:
            return
        if view.error:
            # Anything but "there is none" may pass, and what is known may still be right.
            if verdict_of(view.error).reason == "no_topic":
                self._decide(topic, verdict_of(view.error), detail_of(view.error))
            return
        topic.leaders = view.leaders
        topic.verdict = None
        del topic.lanes[len(view.leaders) :]
        for partition in range(len(topic.lanes), len(view.leaders)):
            topic.lanes.append(Lane(topic, partition))

    def _decide(self, topic: Topic, verdict: Verdict, detail: str) -> None:
        topic.verdict = verdict
        topic.detail = detail
        topic.verdict_until = asyncio.get_running_loop().time() + _VERDICT_FOR
        if verdict is not _NO_ANSWER:
            topic.leaders = ()
        self._on_verdict(topic, verdict, detail)
        if verdict is not _NO_ANSWER:
            topic.lanes.clear()

    async def _learn_limit(self, topic: Topic) -> None:
        try:
            await self._read_limits([topic])
        finally:
            topic.asking = None

    async def _read_limits(self, topics: Iterable[Topic]) -> None:
        names = {topic.name: topic for topic in topics}
        try:
            found = await self._cluster.topic_settings(names, ["max.message.bytes"], ASK_WITHIN)
        except CLIENT_ERRORS:
            found = {}
        until = asyncio.get_running_loop().time() + _LIMIT_FOR
        for name, topic in names.items():
            limit = found.get(name, {}).get("max.message.bytes", "")
            topic.bytes_limit = int(limit) if limit.isdigit() else None
            topic.limit_until = until

    def _forget(self) -> None:
        """Drop topics that do not exist: their names came from events and have no end."""
        for name, topic in list(self._topics.items()):
            if not topic.lanes and not topic.parked and topic.asking is None:
                del self._topics[name]
