"""Asks demo.gguf the held-out questions and prints how many it gets right: `python -m models.demo.evaluate`.

Greedy, with llama-cpp-python, as Linnet runs it. --write puts the table into README.md; --show prints what went wrong.
"""

import argparse
import json
import re
import time
from typing import Any

from llama_cpp import Llama
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from models.demo.cases import Case, all_groups
from models.demo.paths import DEMO, LAYOUT, README

MARKED = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)


def check_layout(llama: Llama) -> None:
    """The template and llama.cpp's tokenizer must give the very tokens the network was trained on."""
    formatter = Jinja2ChatFormatter(llama.metadata["tokenizer.chat_template"], "<|end|>", "<|begin|>", False)
    for entry in json.loads(LAYOUT.read_text()):
        messages: Any = [{"role": role, "content": content} for role, content in entry["chat"]]
        prompt = formatter(messages=messages).prompt
        tokens = llama.tokenize(prompt.encode(), add_bos=False, special=True)
        if tokens[: len(entry["tokens"])] != entry["tokens"]:
            raise SystemExit(f"the template and the training disagree on {messages}")


def answer(llama: Llama, case: Case) -> str:
    """The model's last answer; its earlier ones stand in the history as it gave them."""
    messages: Any = [{"role": role, "content": content} for role, content in case.history]
    text = ""
    for said in case.says:
        messages.append({"role": "user", "content": said})
        reply: Any = llama.create_chat_completion(messages, temperature=0.0, max_tokens=600)
        text = str(reply["choices"][0]["message"]["content"])
        messages.append({"role": "assistant", "content": text})
    return text


def ask_group(llama: Llama, cases: list[Case], show: bool) -> int:
    """How many of them are right."""
    n_right = 0
    for case in cases:
        said = answer(llama, case)
        if case.is_right(said):
            n_right += 1
        elif show:
            print(f"  asked: {' | '.join(case.says)}\n  said:  {said!r}", flush=True)
    return n_right


def main() -> None:
    """Asks everything, prints the table and perhaps writes it into README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--show", action="store_true", help="print each wrong answer")
    parser.add_argument("--only", default="", help="only the groups whose name holds this text")
    parser.add_argument("--part", type=int, default=1, help="only each n-th question, for a quick look")
    args = parser.parse_args()
    if args.write and (args.only or args.part > 1):
        parser.error("--write needs the whole evaluation")
    llama = Llama(
        str(DEMO), n_ctx=2048, n_threads=1, n_threads_batch=1, verbose=False
    )  # so small that one thread is the fastest
    if LAYOUT.exists():
        check_layout(llama)
    started = time.monotonic()
    lines = ["| Group | Right |", "|---|---|"]
    for group, cases in all_groups(seed=7).items():
        if args.only in group:
            some = cases[:: args.part]
            n_right = ask_group(llama, some, args.show)
            lines.append(f"| {group} | {n_right} of {len(some)} ({100 * n_right / len(some):.0f} %) |")
            print(lines[-1], f"{time.monotonic() - started:.0f} s", flush=True)
    if args.write:
        table = "\n".join(lines) + "\n"
        README.write_text(MARKED.sub(lambda _: table, README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
