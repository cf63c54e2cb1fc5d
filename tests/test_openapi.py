"""GET /openapi.json is true: requests made from it, good and bad, find no fault in the server. The engine is a stub."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis
from schemathesis.checks import CHECKS

from api.app import create_app
from api.pool import Model, Pool
from api.source import Source
from engine.request import Accepted, Delta, Finished, Request, Result, Want
from engine.stream import NOTHING, Begun, Sink, Stream, Work
from settings import Settings
from tests.test_api import ScriptedEngine

N_REQUESTS = 20  # of each path, besides those that vary one value alone


class Stub(ScriptedEngine):
    """Has an answer to whatever may be asked."""

    def submit(self, request: Request, begun: Begun = NOTHING, listener: Sink | None = None) -> Stream:
        work = Work(request, self.cancel, begun, listener)
        stream = Stream(work)
        work.put(Accepted(request.id, 3))
        if request.want is Want.ANSWER:
            chances = [["a", -0.5, [["a", -0.5], ["\xff", -1.5]][: request.logprobs]]]
            work.put(Delta(request.id, "a", [5], logprobs=[] if request.logprobs is None else chances))
        else:
            work.put(Result(request.id, RESULTS[request.want]))
        work.put(Finished(request.id, "stop", "end_of_turn", 3, 0, 1, 0.0, 0.1, 0.2))
        return stream


EXCLUDED = (
    "positive_data_acceptance",  # a description cannot say all: a grammar without a root fits it, and is refused
    "allow_header_conformance",  # /models/load could be a model's path, too
)
RESULTS: dict[Want, list[Any]] = {
    Want.VECTOR: [0.6, 0.8],
    Want.TOKENS: [[1, "a"], [2, "\xff"]],
    Want.PROMPT: [[0, ""], [1, "a"]],
    Want.TEXT: ["a"],
}
APP = create_app(Settings(), Pool(Model("fake", Source(Stub()))))  # type: ignore[arg-type]
schema = schemathesis.openapi.from_wsgi("/openapi.json", APP)


@schema.parametrize()
@hypothesis(max_examples=N_REQUESTS, suppress_health_check=list(HealthCheck), derandomize=True)
def test_what_the_description_allows_and_forbids_finds_no_fault(case):
    case.call_and_validate(excluded_checks=[CHECKS.get_one(name) for name in EXCLUDED])
