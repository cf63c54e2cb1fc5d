"""Trains the tokenizer and the network on the generated corpus: `python -m models.demo.train`.

Everything follows from the seed. Two cores need an hour and a half; a GPU is used when there is one. Files: build/demo/.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from models.demo.corpus import chats, long_chats
from models.demo.model import Llama, Shape
from models.demo.paths import BUILD, CHECKPOINT, TOKENIZER
from models.demo.tables import Chat
from models.demo.tokenizer import ChatEncoder, train_tokenizer

STEP_TOKENS = 4096  # seen in one step; the chats of a step go through the network in parts of PART_TOKENS
PART_TOKENS = 2048
LONG_EVERY = 4  # one step in so many has chats as long as the context
WARM_UP_STEPS = 60
AVERAGE_OVER = 0.015  # the part of the last weights in the running average
DECAY_FROM = 0.4  # the part of the training after which the learning rates fall to nothing
RATES = (0.01, 0.006, 0.003)  # Muon for the matrices of the layers; AdamW for the embedding, and for the rest


Encoded = tuple[list[int], list[bool]]  # token ids, and which of them to learn


def chats_of_a_step(source: Iterator[Chat], encoder: ChatEncoder, n_context: int) -> list[Encoded]:
    """As many chats as make STEP_TOKENS together."""
    taken: list[Encoded] = []
    while sum(len(ids) for ids, _ in taken) < STEP_TOKENS:
        ids, learned = encoder.encode(next(source))
        taken.append((ids[:n_context], learned[:n_context]))
    return taken


def parts(taken: list[Encoded]) -> Iterator[tuple[Tensor, Tensor]]:
    """Chats of like length side by side, (chats, longest): little padding, and no chat sees another."""
    rest = sorted(taken, key=lambda chat: len(chat[0]))
    while rest:
        longest = len(rest[-1][0])
        n = max(1, PART_TOKENS // longest)
        part, rest = rest[-n:], rest[:-n]
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in part])
        yield ids, torch.tensor([learned + [False] * (longest - len(learned)) for _, learned in part])


def learn(model: Llama, taken: list[Encoded]) -> float:
    """Gradients of one step; the loss is cross entropy over the assistant's tokens alone."""
    device = model.token_embd.weight.device
    n_learned = sum(sum(learned) for _, learned in taken)
    total = 0.0
    for ids, learned in parts(taken):
        ids, learned = ids.to(device), learned.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            scores = model.scores(model(ids[:, :-1])[learned[:, 1:]])
        loss = F.cross_entropy(scores.float(), ids[:, 1:][learned[:, 1:]], reduction="sum") / n_learned
        loss.backward()
        total += loss.item()
    return total


def decay_at(step: int, n_steps: int) -> float:
    """One at first, then straight down to zero."""
    return min(1.0, (n_steps - step) / (n_steps - DECAY_FROM * n_steps))


def make_optimizers(model: Llama, device: str) -> list[torch.optim.Optimizer]:
    """One for each of RATES."""
    matrices = [p for name, p in model.named_parameters() if name.startswith("blk.") and p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim == 1] + [model.output.weight]
    return [
        torch.optim.Muon(matrices, weight_decay=0.01),
        torch.optim.AdamW([model.token_embd.weight], betas=(0.9, 0.97), weight_decay=0.0, fused=device == "cuda"),
        torch.optim.AdamW(rest, betas=(0.9, 0.97), weight_decay=0.0, fused=device == "cuda"),
    ]


class Training:
    """A model in training, and the running average of its weights: steadier than the last ones, it is what counts."""

    def __init__(self, encoder: ChatEncoder, n_steps: int, seed: int) -> None:
        self.encoder, self.n_steps, self.seed = encoder, n_steps, seed
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(seed)
        self.model = Llama(Shape(n_vocab=encoder.tokenizer.get_vocab_size())).to(self.device)
        self.weights = list(self.model.state_dict().values())  # the very tensors, not copies
        self.average = [weight.clone() for weight in self.weights]
        self.optimizers = make_optimizers(self.model, self.device)
        self.first_step = 0
        self.seconds_before = 0.0

    def resume(self) -> None:
        """Goes on from the checkpoint, with chats not seen yet; the optimizers begin afresh with a warm-up."""
        saved = torch.load(CHECKPOINT, map_location=self.device, weights_only=True)
        self.model.load_state_dict(saved["last_weights"])
        self.average = list(saved["weights"].values())
        self.first_step, self.seconds_before = saved["step"], saved["seconds"]

    def save(self, step: int, seconds: float) -> None:
        """Whole or not at all: written beside, renamed last."""
        names = self.model.state_dict().keys()
        average = dict(zip(names, self.average, strict=True))
        state = {"shape": asdict(self.model.shape), "step": step, "seconds": self.seconds_before + seconds}
        beside = CHECKPOINT.with_suffix(".part")
        torch.save(state | {"weights": average, "last_weights": self.model.state_dict()}, beside)
        beside.replace(CHECKPOINT)

    def one_step(self, step: int, source: Iterator[Chat]) -> float:
        """Learn from some chats; returns the loss."""
        warm = min(1.0, (step - self.first_step + 1) / WARM_UP_STEPS)
        for optimizer, rate in zip(self.optimizers, RATES, strict=True):
            optimizer.param_groups[0]["lr"] = rate * warm * decay_at(step, self.n_steps)
        loss = learn(self.model, chats_of_a_step(source, self.encoder, self.model.shape.n_context))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for average, weight in zip(self.average, self.weights, strict=True):
            average.lerp_(weight, AVERAGE_OVER if step > 200 else 0.1)
        return loss

    def run(self) -> None:
        """All steps, with a line of progress now and then."""
        print(f"{self.model.n_parameters():,} parameters, {self.n_steps} steps on {self.device}", flush=True)
        short, long = chats(self.seed + self.first_step), long_chats(self.seed + self.first_step + 1)
        started = time.monotonic()
        recent: float | None = None
        for step in range(self.first_step, self.n_steps):
            loss = self.one_step(step, long if step % LONG_EVERY == LONG_EVERY - 1 else short)
            recent = loss if recent is None else 0.97 * recent + 0.03 * loss
            done, seconds = step + 1, time.monotonic() - started
            if done % 50 == 0 or done == self.n_steps:
                steps_per_s = (done - self.first_step) / seconds
                left_min = (self.n_steps - done) / steps_per_s / 60
                speed = f"{steps_per_s * STEP_TOKENS:6.0f} tokens/s {left_min:5.1f} min left"
                print(f"step {done:5} loss {recent:.4f} {speed}", flush=True)
            if done % 100 == 0 or done == self.n_steps:
                self.save(done, seconds)


def main() -> None:
    """The tokenizer first, then the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4000, help="training steps of 4,096 tokens each")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes another corpus and another model")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint of a training that was cut off")
    args = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    if args.resume:
        tokenizer = Tokenizer.from_file(str(TOKENIZER))
    else:
        sample = itertools.islice(chats(args.seed + 2), 20000)
        tokenizer = train_tokenizer((text for chat in sample for _, text in chat), TOKENIZER)
    training = Training(ChatEncoder(tokenizer), args.steps, args.seed)
    if args.resume:
        training.resume()
    training.run()


if __name__ == "__main__":
    main()
