"""The original's own stack: a llama of random weights in float32 by transformers. Runs in bench.peers.build's environment.

python -m bench.peers.baseline '{"vocab_size": 32000, ...}' N_THREADS     LlamaConfig's fields

Each line of input is a list of two counts, of a prompt's and of an answer's tokens; the line of output for it is a list
of the answer's tokens that came and the seconds they took. One line before all others says that it is ready.
"""

from __future__ import annotations

import json
import sys
import time

import torch  # type: ignore[import-not-found]  # lives in the other environment
import transformers  # type: ignore[import-not-found]


def main(arguments: list[str]) -> int:
    """The exit code."""
    shape, n_threads = arguments
    torch.set_num_threads(int(n_threads))
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**json.loads(shape), bos_token_id=None, eos_token_id=None)
    model = transformers.LlamaForCausalLM(config).float().eval()
    print("[]", flush=True)
    for line in sys.stdin:
        n_prompt, n_answer = json.loads(line)
        prompt = torch.randint(config.vocab_size, (1, n_prompt))
        mask = torch.ones_like(prompt)
        started = time.perf_counter()
        with torch.inference_mode():
            answer = model.generate(prompt, attention_mask=mask, max_new_tokens=n_answer, do_sample=False)
        print(json.dumps([answer.shape[1] - n_prompt, time.perf_counter() - started]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
