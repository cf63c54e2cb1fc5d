"""engine.template: what Hugging Face's templates need, and a stranger's program that gets neither far nor long nor big."""

from __future__ import annotations

import gc
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from engine import template
from engine.template import Template, TemplateError
from tests.conftest import ROOT

# The alarm may go off while something is destroyed, where nobody can catch it; it is repeated until it is heard.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MESSAGES = [{"role": "user", "content": "hi"}]
FOR_EVER = "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}"
TWICE = "{{% set ns = namespace(x='ab') %}}{{% for i in range(60) %}}{} {{% endfor %}}{{{{ ns.x }}}}"
MILLION = "{% set x = 'a' * 1000000 %}"
BIG = {
    "product": "{{ 'a' * 2**40 }}",
    "product of a list": "{{ ([1] * 2**40) | length }}",
    "sums": TWICE.format("{% set ns.x = ns.x + ns.x %}"),
    "tildes": TWICE.format("{% set ns.x = ns.x ~ ns.x %}"),
    "blocks": TWICE.format("{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}"),
    "replaced": MILLION + "{{ x | replace('a', x) }}",
    "joined": MILLION + "{{ x | join(x) }}",
    "percent": "{{ '%999999999d' % 1 }}",
    "star": "{{ '%*d' % (999999999, 1) }}",
    "format": "{{ '{:>999999999}'.format(1) }}",
    "center": "{{ 'a' | center(9999999999) }}",
    "center when compiled": "{{ 'a' | center(400000000) }}",
    "indent": "{{ 'a\nb' | indent(9999999999) }}",
    "JSON": "{{ [1] | tojson(indent=999999999) }}",
    "batch": "{{ [1] | batch(9999999999, 'x') | list }}",
    "tabs": "{{ '\t'.expandtabs(999999999) }}",
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "power": "{{ 10 ** (10**10) % 7 }}",
    "squares": "{% set ns = namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "rounding": "{{ 1.5 | round(10**9, 'ceil') }}",
    "hexadecimal": "{{ ('f' * 999999) | int(0, 16) // ('f' * 500000) | int(0, 16) }}",
    "bytes": "{{ (1).from_bytes(('a' * 999999).encode(), 'big') }}",
    "deep": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "brackets": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "much text": "{% for i in range(100000) %}{% for j in range(100000) %}" + "abcd" * 100 + "{% endfor %}{% endfor %}",
}
# Renders a BIG one and prints what is said, the CPU's seconds, and the most memory the process had, in KiB.
CHILD = """
import resource, sys, time
from engine.template import Template, TemplateError

resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
try:
    Template(sys.stdin.read()).render()
except TemplateError as error:
    print(error)
print(time.process_time())
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.fixture(autouse=True)
def no_callbacks() -> Iterator[None]:
    """Nor where hypothesis does something at each collection of garbage: that is likely, and pytest is hit there, too."""
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = callbacks


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "LIMIT_S", 0.2)


def render(source: str, **variables: Any) -> str:
    return Template(source).render(**variables)


def test_templates_get_the_names_and_options_they_are_written_for():
    source = """{%- for m in messages %}
    {%- if loop.index0 == 1 %}{% break %}{% endif %}
{{ bos_token }}[{{ m['role'] }}] {{ m['content'] | trim }}
{%- endfor %}
{%- if add_generation_prompt %}>{% endif %}"""
    assert render(source, messages=MESSAGES * 2, bos_token="<s>", add_generation_prompt=True) == "<s>[user] hi>"
    assert len(render("{{ strftime_now('%d %b %Y') }}")) == 11
    assert render("{% generation %}{{ messages[0].content }}{% endgeneration %}!", messages=MESSAGES) == "hi!"


def test_json_is_written_as_hugging_face_writes_it():
    value = {"b": "<é'>", "a": [1]}
    assert render("{{ v | tojson }}", v=value) == '{"b": "<é\'>", "a": [1]}'
    assert render("{{ v | tojson(indent=2) }}", v=[1]) == "[\n  1\n]"
    assert render("{{ v | tojson(separators=(',', ':'), sort_keys=true) }}", v=value) == '{"a":[1],"b":"<é\'>"}'


def test_arithmetic_of_usual_size_works():
    assert (
        render("{{ 2**10 + 7 * 6 - 1 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 'a' * 3 + 'b' }} {{ '%s!' % 1 }}") == "1065 3 3 aaab 1!"
    )
    assert render("{{ '12' | int + 1 }} {{ 2.567 | round(1) }} {{ ([1] + [2]) | length }}") == "13 2.6 2"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('Roles must alternate') }}", "refuses these messages: Roles must alternate"),
        ("{{ nobody.content }}", "refuses these messages: 'nobody' is undefined"),
        ("{{ 1 / 0 }}", "failed: ZeroDivisionError"),
        ("{% include '/etc/passwd' %}", "failed: TypeError"),
    ],
)
def test_a_template_that_refuses_or_fails_says_so_in_a_sentence(source, words):
    with pytest.raises(TemplateError, match=words):
        render(source)


@pytest.mark.parametrize("source", ["{% for %}", "{{ 'a' | nofilter }}", "{% if 1 %}" * 2000 + "{% endif %}" * 2000])
def test_what_is_not_jinja_is_said_to_be_broken_when_it_is_compiled(source):
    with pytest.raises(TemplateError, match=r"^the chat template in it is broken \(.+\)$"):
        Template(source)


def test_what_a_template_says_is_cut_and_can_be_sent():
    with pytest.raises(TemplateError) as error:
        render("{{ raise_exception('\\udc00\\ud800é' * 100000) }}")
    assert len(str(error.value).encode()) < 2000
    assert render("{{ 'a\\udc00' }}") == "a\ufffd"


@pytest.mark.parametrize(
    "way",
    [
        "cycler.__init__.__globals__.os",
        "cycler|attr('__init__')|attr('__globals__')",
        "strftime_now.__globals__['json'].codecs.sys.modules.os",
        "raise_exception.__globals__['signal'].os",
        "''.__class__.__mro__[1].__subclasses__()[0]",
        "'{0.__class__.__init__.__globals__}'.format(cycler)",
        "self._TemplateReference__context.environment",
    ],
)
def test_a_template_that_tries_to_break_out_runs_nothing(way, tmp_path):
    trace = tmp_path / "trace"
    with pytest.raises(TemplateError, match="refuses"):
        render(f"{{{{ ({way}).system('touch {trace}') }}}}")
    assert not trace.exists()


def test_a_template_changes_nothing_that_it_is_given():
    messages = [dict(message) for message in MESSAGES]
    for change in ("messages.append(1)", "messages[0].update(role='system')", "messages[0].clear()"):
        with pytest.raises(TemplateError, match="refuses"):
            render(f"{{{{ {change} }}}}", messages=messages)
    assert messages == MESSAGES


@pytest.mark.parametrize("source", [FOR_EVER, "{{ lipsum(10**9) }}", "{{ lipsum(1, max=10**9, min=10**9 - 1) }}"])
@pytest.mark.parametrize("main", [True, False], ids=["main thread", "other thread"])
@pytest.mark.usefixtures("hurried")
def test_a_template_without_an_end_is_ended(source, main):
    started = time.monotonic()
    with pytest.raises(TemplateError, match=r"takes longer than 0\.2 s"):
        if main:
            render(source)
        else:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(render, source).result()
    assert time.monotonic() - started < 5


@pytest.mark.usefixtures("hurried")
def test_compiling_is_limited_too():
    with pytest.raises(TemplateError, match=r"broken \(it takes longer than 0\.2 s\)"):
        Template("{{ [1] | slice(9999999999) | list }}")


@pytest.mark.usefixtures("hurried")
def test_an_alarm_that_is_swallowed_comes_again():
    class Swallowing:
        n = 0

        def __str__(self) -> str:
            try:
                time.sleep(9)
            except BaseException:  # noqa: BLE001  # as a destructor or a callback of C code does
                self.n += 1
            return ""

    swallowing = Swallowing()
    with pytest.raises(TemplateError, match="takes longer"):
        render("{{ s }}" + FOR_EVER, s=swallowing)
    assert swallowing.n == 1


def test_alarm_and_limits_are_afterwards_as_they_were_before():
    def handler(*_: object) -> None: ...

    assert threading.current_thread() is threading.main_thread()
    before, limits = signal.signal(signal.SIGALRM, handler), resource.getrlimit(resource.RLIMIT_AS)
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        for source in ("a", "{{ 'a' | center(9999999999) }}", "{{ raise_exception('') }}"):
            try:
                render(source)
            except TemplateError:
                assert source != "a"
            assert signal.getsignal(signal.SIGALRM) is handler
            assert 50 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
            assert resource.getrlimit(resource.RLIMIT_AS) == limits
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_other_threads_leave_alarm_and_tracing_alone():
    def other() -> tuple[str, object]:
        return render("{{ 1 + 1 }}"), sys.gettrace()

    handler = signal.getsignal(signal.SIGALRM)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(other).result() == ("2", None)
    assert signal.getsignal(signal.SIGALRM) is handler


def test_a_text_without_an_end_is_ended():
    with pytest.raises(TemplateError, match=f"makes more than {template.N_CHARACTERS} characters"):
        render(BIG["much text"])


@pytest.mark.parametrize("source", BIG.values(), ids=BIG)
def test_a_template_that_wants_all_memory_gets_little_and_soon_a_sentence(source):
    started = [sys.executable, "-c", CHILD]
    child = subprocess.run(started, input=source, capture_output=True, text=True, cwd=ROOT, timeout=30, check=False)
    assert child.returncode == 0, child.stderr
    sentence, seconds, kib = child.stdout.splitlines()
    assert sentence.startswith(("The model's chat template ", "the chat template in it is broken ")), sentence
    assert float(seconds) < template.LIMIT_S + 1
    assert int(kib) < 2**19  # half of what it was given


def test_what_a_refused_template_made_is_given_back():
    process = psutil.Process()
    before = process.memory_info().rss
    with pytest.raises(TemplateError, match=r"memory|longer"):
        render(BIG["tildes"])
    assert process.memory_info().rss - before < 10**8  # it had 256 MiB and more
