"""bench.prompts: the tasks that speed is measured with."""

import json
from collections import Counter

import pytest

from bench import prompts

TASK = {"id": "chat-01", "kind": "chat", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


def test_there_are_twenty_tasks_of_each_kind_and_no_two_are_the_same():
    tasks = prompts.load()
    assert Counter(task.kind for task in tasks) == dict.fromkeys(prompts.KINDS, 20)
    assert len({json.dumps(task.messages) for task in tasks}) == len({task.id for task in tasks}) == 80
    assert prompts.load("code") == [task for task in tasks if task.kind == "code"]


def test_a_summary_brings_a_text_along_and_a_copy_something_to_repeat():
    for task in prompts.load("summary"):
        assert 150 <= len(task.messages[-1]["content"].split("\n\n", 1)[1].split()) <= 500, task.id
    for task in prompts.load("copy"):
        assert len(task.messages[-1]["content"].split("\n\n", 1)[1]) >= 200, task.id


def test_some_chats_have_a_system_prompt_and_some_more_than_one_turn():
    roles = [[message["role"] for message in task.messages] for task in prompts.load("chat")]
    assert any("system" in turns for turns in roles)
    assert {turns.count("user") for turns in roles} == {1, 2, 3}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "talk"},
        {"id": "code-01"},
        {"max_tokens": 0},
        {"max_tokens": True},
        {"messages": []},
        {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"temperature": 1},
    ],
    ids=str,
)
def test_what_is_no_task_is_refused(tmp_path, wrong):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(TASK | wrong))
    with pytest.raises(ValueError):
        prompts.load(path=path)


def test_an_id_that_stands_there_twice_and_a_kind_that_there_is_not_are_refused(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(TASK) + "\n" + json.dumps(TASK))
    with pytest.raises(ValueError, match="same id"):
        prompts.load(path=path)
    with pytest.raises(ValueError, match="poems"):
        prompts.load("poems")
