"""The built-in demo model: what it says about Linnet is true, and it can do what its README says."""

from __future__ import annotations

import random
import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import openai
import pytest
from gguf import GGUFReader

from models.catalog import DEFAULT, catalog
from models.demo import asking, cases
from settings import Settings, option, variable
from tests.conftest import DEMO, ROOT

FOLDER = ROOT / "models/demo"
TOPICS = tomllib.loads((FOLDER / "topics.toml").read_text())["topic"]
README = (FOLDER / "README.md").read_text()
DEFAULTS = {field.name: field.default for field in fields(Settings)}
OPTIONS = {option(field) for field in fields(Settings)} | {"--help"}
VARIABLES = {variable(field) for field in fields(Settings)}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
ROUTES = {"POST /v1/chat/completions", "GET /v1/models", "GET /health"}
WORDS = {"messages", "role", "content", "temperature", "top_p", "max_tokens", "stop", "seed", "stream", '"stream": true'}
WORDS |= {"base_url", "openai", "Q4_K_M"}


def is_true(span: str) -> bool:
    """Whether what stands in backticks is there in the program, under this very name."""
    command = shlex.split(span)
    match command[0]:
        case "make":
            return {word for word in command[1:] if "=" not in word} <= TARGETS
        case "python":
            return command[1] == "server.py" and {word for word in command if word.startswith("--")} <= OPTIONS
        case word if word.startswith("--"):
            return word in OPTIONS
        case word if word.startswith("LINNET_"):
            return word in VARIABLES
        case word if word.startswith("http://"):
            return word.removesuffix("/v1") == f"http://localhost:{DEFAULTS['port']}"
        case "~/.cache/linnet":
            return DEFAULTS["cache_dir"] == Path(span)
        case "models/" | ".venv/":
            return span.rstrip("/") in (ROOT / "scripts/setup.py").read_text() + (ROOT / "README.md").read_text()
        case "127.0.0.1":
            return DEFAULTS["host"] == span
    return span in ROUTES | WORDS


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic["id"])
def test_every_command_option_and_address_it_names_is_real(topic):
    for span in re.findall(r"`([^`]*)`", topic["answer"]):
        assert is_true(span), span


def test_what_it_says_without_backticks_is_real_too():
    answers = {topic["id"]: topic["answer"] for topic in TOPICS}
    page = (ROOT / "web/page/index.html").read_text()
    for id, button in (("send", "Send"), ("stop-answer", "Stop"), ("new-chat", "New chat")):
        assert f"{button} button" in answers[id]
        assert f'aria-label="{button}"' in page
    assert f"below {DEFAULTS['greedy_below']}" in answers["greedy"]
    assert f"The default is {DEFAULTS['port']}." in answers["port"]
    assert "TinyLlama 1.1B Chat in Q4_K_M" in answers["bigger-model"]
    assert catalog()[DEFAULT].file == "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf"


def test_it_knows_sixty_topics_in_twenty_wordings_each_and_none_of_the_held_out_ones():
    assert len(TOPICS) >= 60
    for topic in TOPICS:
        rng = random.Random(1)
        asked = {asking.plain(asking.one_of(topic, rng)) for _ in range(500)} - asking.held_out_wordings()
        assert len(asked) >= 20, topic["id"]


def test_the_file_is_small_and_whole():
    assert DEMO.stat().st_size <= 10_000_000
    reader = GGUFReader(DEMO)
    field = {name: reader.get_field(name) for name in ("llama.context_length", "tokenizer.chat_template")}
    assert field["llama.context_length"].contents() >= 2048
    assert field["tokenizer.chat_template"].contents() == (FOLDER / "template.jinja").read_text().rstrip("\n")
    assert 3e6 <= sum(int(tensor.n_elements) for tensor in reader.tensors) <= 6e6


GROUPS = cases.all_groups(seed=11)
FIGURES = {
    group: int(right) / int(asked)
    for group, right, asked in re.findall(r"^\| (.+) \| (\d+) of (\d+) \(", README, re.MULTILINE)
}


BEYOND = {"lists, counting, poems", "says words after the user", "all kinds and names, after 1,500 tokens of chat"}


def test_its_readme_has_a_figure_for_every_group_of_the_evaluation():
    assert list(FIGURES) == list(GROUPS)


@pytest.mark.parametrize("group", [group for group in GROUPS if group not in BEYOND])
def test_it_gets_nine_of_ten_right_in_each_group_that_it_promises(group):
    assert FIGURES[group] >= 0.9


@pytest.mark.parametrize("group", GROUPS)
def test_it_is_as_good_as_its_readme_says_in_wordings_it_has_never_seen(group, client: openai.OpenAI):
    asked = GROUPS[group][:: len(GROUPS[group]) // 7]
    right = 0
    for case in asked:
        messages: list[Any] = [{"role": role, "content": content} for role, content in case.history]
        for said in case.says:
            messages.append({"role": "user", "content": said})
            message = client.chat.completions.create(model="demo", messages=messages).choices[0].message
            thoughts = getattr(message, "reasoning_content", "")  # how it came to a sum is asked for, too
            answer = f"<think>\n{thoughts}\n</think>\n\n{message.content}" if thoughts else message.content or ""
            messages.append({"role": "assistant", "content": answer})
        right += case.is_right(answer)
    assert right / len(asked) >= FIGURES[group] - 0.3  # some seven questions say less than all of them
