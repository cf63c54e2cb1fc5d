"""What is counted, as Prometheus reads it.

Under `llamacpp:` stands what llama-server counts too, by its own names, so that its dashboards show it; the rest is ours.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from engine.tally import Counts, Told

# llama-server's counters: name, what it is, how it is counted here.
COUNTERS: list[tuple[str, str, Callable[[Counts], float]]] = [
    ("prompt_tokens", "Tokens of prompts read, without those whose state was known.", lambda c: c.n_prompt),
    ("prompt_tokens_cached", "Tokens of prompts whose state was known.", lambda c: c.n_known),
    ("prompt_seconds", "Seconds from an answer's slot to its first token.", lambda c: c.prompt_s),
    ("tokens_predicted", "Tokens generated.", lambda c: c.n_answer),
    ("tokens_predicted_seconds", "Seconds from an answer's first token to its last.", lambda c: c.answer_s),
    ("n_decode", "Calls of llama_decode().", lambda c: c.n_steps),
    ("spec_decode_num_drafts", "Times that tokens were guessed ahead and checked.", lambda c: c.n_drafts),
    ("spec_decode_num_draft_tokens", "Tokens guessed ahead.", lambda c: c.n_guessed),
    ("spec_decode_num_accepted_tokens", "Tokens guessed right.", lambda c: c.n_right),
]


class Facts(Protocol):
    """See api.status."""

    def told(self) -> Told: ...  # noqa: D102
    def models(self) -> list[dict[str, Any]]: ...  # noqa: D102
    def cache(self) -> dict[str, Any] | None: ...  # noqa: D102
    def memory(self) -> Mapping[str, int]: ...  # noqa: D102
    def uptime_s(self) -> float: ...  # noqa: D102


class Traffic:
    """HTTP requests by route and status. Any thread may count."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, int]] = Counter()
        self._lock = threading.Lock()

    def count(self, method: str, route: str, status: int) -> None:
        """One more; its response begins."""
        with self._lock:
            self._counts[method, route, status] += 1

    def counts(self) -> Mapping[tuple[str, str, int], int]:
        """So far."""
        with self._lock:
            return dict(self._counts)


class Metrics(Collector):
    """All of it, asked for by a registry."""

    def __init__(self, facts: Facts, traffic: Traffic) -> None:
        self._facts, self._traffic = facts, traffic

    def collect(self) -> Iterator[Metric]:
        """As of this moment."""
        told, models = self._facts.told(), self._facts.models()
        yield from _of_llama_server(told, models)
        yield HistogramMetricFamily("linnet_queue_seconds", "The wait for a slot.", *told.waits)
        first = "From a request's arrival in the engine to its first token."
        yield HistogramMetricFamily("linnet_time_to_first_token_seconds", first, *told.firsts)
        yield _counter("linnet_answers", "Answers that were computed to their end.", told.counts.n_answers)
        yield self._requests()
        yield from _of_models(models)
        if (cache := self._facts.cache()) is not None:
            yield from _of_cache(cache)
        memory = GaugeMetricFamily("linnet_memory_bytes", "Resident memory, mapped weights in it.", labels=["process"])
        for process, n_bytes in self._facts.memory().items():
            memory.add_metric([process], n_bytes)
        yield memory
        yield _gauge("linnet_uptime_seconds", "Since the server began.", self._facts.uptime_s())

    def _requests(self) -> Metric:
        family = CounterMetricFamily("linnet_http_requests", "HTTP requests.", labels=["method", "route", "status"])
        for (method, route, status), n in self._traffic.counts().items():
            family.add_metric([method, route, str(status)], n)
        return family


def _of_llama_server(told: Told, models: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    counts = told.counts
    for name, help, value in COUNTERS:
        yield _counter(f"llamacpp:{name}", help, value(counts))
    busy = counts.n_in_steps / counts.n_steps if counts.n_steps else 0.0
    recent = "of the last few answers."
    yield _gauge("llamacpp:n_busy_slots_per_decode", "Mean number of sequences in a call of llama_decode().", busy)
    yield _gauge("llamacpp:n_tokens_max", "Tokens of the longest answer, with its prompt.", counts.n_longest)
    yield _gauge("llamacpp:prompt_tokens_seconds", f"Tokens a second of the prompts {recent}", told.prompt_tokens_per_s)
    yield _gauge("llamacpp:predicted_tokens_seconds", f"Tokens a second {recent}", told.answer_tokens_per_s)
    yield _gauge("llamacpp:requests_processing", "Requests in a slot.", sum(model["busy"] for model in models))
    yield _gauge("llamacpp:requests_deferred", "Requests that wait for one.", sum(model["waiting"] for model in models))
    yield _gauge("linnet_tokens_per_second", "Tokens generated just now, of all answers together.", told.tokens_per_s)


def _of_models(models: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    loaded = GaugeMetricFamily("linnet_model_loaded", "1: it is in memory.", labels=["model"])
    restarts = CounterMetricFamily("linnet_engine_restarts", "Times its process had to be replaced.", labels=["model"])
    for model in models:
        loaded.add_metric([model["name"]], model["state"] == "loaded")
        restarts.add_metric([model["name"]], model["restarts"])
    yield from (loaded, restarts)


def _of_cache(cache: Mapping[str, Any]) -> Iterator[Metric]:
    """They outlive a run, where the answers do."""
    family = CounterMetricFamily("linnet_answer_cache_requests", "Answers by how they were found.", labels=["how"])
    for how, name in (("hit", "hits"), ("miss", "misses"), ("joined", "joined")):
        family.add_metric([how], cache[name])
    yield family
    yield _gauge("linnet_answer_cache_entries", "Answers kept.", cache["entries"])
    yield _gauge("linnet_answer_cache_bytes", "Their size.", cache["bytes"])
    yield _counter("linnet_answer_cache_saved_seconds", "What they would have taken to compute again.", cache["saved_s"])
    yield _counter("linnet_answer_cache_evictions", "Answers that made room for others.", cache["evictions"])


def _counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(name, help, value)


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value)
