"""What has been read before: a tree of token prefixes whose computed states (KV) are kept in memory and on disk.

A radix tree in which a node is never split: a node holds the state of the tokens from `start` on, and a prompt that
parts from it in the middle hangs on it at that position. So a conversation is the path from the root to its last node,
each turn adds one node with the new tokens only, and what many conversations share (a system prompt) is held once.

        <s>You are helpful. <|user|> Hi <|assistant|> Hello!          one node
                                   \\ What is 2+2? ...                 hangs on it at position 9, holds the rest

Using a node makes it younger than all below it. So the least recently used node is always a leaf, and what is shared
outlives what is not. Knows nothing of llama.cpp: a state is bytes. Owned by one thread.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from engine.states import Record, State, States

N_LEAST = 8  # fewer new tokens are not worth a node
N_MOST = 256  # more would be read whole for the sake of the first few of them


@dataclass(eq=False)
class Node:
    """Tokens that follow the parent's prefix of `start` tokens, and their state."""

    parent: Node | None  # None: it begins with the first token
    start: int
    tokens: list[int]
    id: str  # names the whole prefix
    n_bytes: int
    state: State | None  # None: on disk only
    children: dict[tuple[int, int], Node] = field(default_factory=dict)  # by position and first token

    @property
    def stop(self) -> int:
        """The position after its last token."""
        return self.start + len(self.tokens)


@dataclass(frozen=True)
class Piece:
    """A node's part of a known prefix: its state is good for the positions before `stop`."""

    node: Node
    stop: int


class Prefixes:
    """The tree, within `ram_bytes` of memory; on disk as far as `states` takes it."""

    def __init__(self, ram_bytes: int, states: States) -> None:
        self._ram_bytes = ram_bytes
        self._n_ram_bytes = 0
        self._states = states
        self._root = Node(None, 0, [], "", 0, b"")
        self._nodes: OrderedDict[str, Node] = OrderedDict()  # by id, the least recently used first
        records = states.records()
        for record in sorted(records, key=lambda r: r.start):  # parents begin before their children
            parent = self._nodes.get(record.parent) if record.parent else self._root
            place = (record.start, record.tokens[0]) if record.tokens else None
            fits = parent and place and parent.start <= record.start <= parent.stop and place not in parent.children
            if parent and fits and record.id == identity(parent.id, record.start, record.tokens):
                self._hang(parent, record.start, record.tokens, record.n_bytes, None)
            else:
                states.remove(record.id)  # what it follows is gone: nothing can reach it
        for record in records:
            if record.id in self._nodes:
                self._nodes.move_to_end(record.id)
        self._shrink_disk()

    def match(self, tokens: list[int]) -> list[Piece]:
        """The longest known prefix of the tokens, from the root on."""
        path, node, n = [], self._root, 0
        while n < len(tokens) and (child := node.children.get((n, tokens[n]))):
            node = child
            n += n_common(node.tokens, tokens, n - node.start, n)
            path.append(Piece(node, n))
        return path

    def read(self, piece: Piece) -> State | None:
        """A piece's state; None when it cannot be read any more."""
        node = piece.node
        state = self._states.read(node.id) if node.state is None else node.state
        if state is None or len(state) != node.n_bytes:
            return None
        if node.state is None and node.n_bytes <= self._ram_bytes:
            node.state = state
            self._n_ram_bytes += node.n_bytes
        return state

    def use(self, path: list[Piece]) -> None:
        """Notes that these were used just now."""
        self._touch(path)
        self._shrink_ram()

    def forget(self, piece: Piece) -> None:
        """Takes a piece out whose state is of no use, and all that hangs on it: nothing could reach it."""
        self._forget(piece.node)

    def add(self, tokens: list[int], state_of: Callable[[int, int], State]) -> None:
        """Keeps the state of these tokens, as far as it is not known yet, in nodes of at most N_MOST tokens.

        `state_of` gives the state of the positions from one number to before another.
        """
        path = self.match(tokens)
        start = path[-1].stop if path else 0
        while self._ram_bytes and len(tokens) - start >= N_LEAST:
            stop = min(len(tokens), (start // N_MOST + 1) * N_MOST)
            state = state_of(start, stop)
            if len(state) > self._ram_bytes:
                break
            node = self._hang(path[-1].node if path else self._root, start, tokens[start:stop], len(state), state)
            self._n_ram_bytes += len(state)
            path.append(Piece(node, stop))
            start = stop
        self.use(path)

    def write(self) -> None:
        """Begins to write what is not on disk yet: for when nothing else is to do."""
        room = self._states.limit_bytes
        for node in reversed(list(self._nodes.values())):
            room -= node.n_bytes
            if room < 0:
                break  # older ones would only be written to be removed again
            self._write(node)
        self._shrink_disk()

    def _write(self, node: Node) -> None:
        if node.state is not None and not self._states.holds(node.id):
            parent = node.parent.id if node.parent else ""
            self._states.write(Record(node.id, parent, node.start, node.tokens, node.n_bytes, 0), node.state)

    def _hang(self, parent: Node, start: int, tokens: list[int], n_bytes: int, state: State | None) -> Node:
        id = identity(parent.id, start, tokens)
        node = Node(None if parent is self._root else parent, start, tokens, id, n_bytes, state)
        parent.children[start, tokens[0]] = node
        self._nodes[id] = node
        return node

    def _touch(self, path: list[Piece]) -> None:
        for piece in reversed(path):  # so that parents become younger than their children
            if piece.node.id in self._nodes:
                self._nodes.move_to_end(piece.node.id)
                self._states.touch(piece.node.id)

    def _shrink_ram(self) -> None:
        """Lets the least recently used go from memory, to disk where they can."""
        for node in list(self._nodes.values()):
            if self._n_ram_bytes <= self._ram_bytes:
                break
            if node.state is not None and node.id in self._nodes:
                self._write(node)
                if self._states.holds(node.id):
                    node.state = None
                    self._n_ram_bytes -= node.n_bytes
                else:
                    self._forget(node)
        self._shrink_disk()

    def _shrink_disk(self) -> None:
        """Lets the least recently used go from disk."""
        oldest = iter(list(self._nodes.values()))
        while self._states.full() and (node := next(oldest, None)):
            self._states.remove(node.id)
            if node.state is None and node.id in self._nodes:
                self._forget(node)

    def _forget(self, node: Node) -> None:
        for child in list(node.children.values()):
            self._forget(child)
        if self._nodes.pop(node.id, None):
            del (node.parent or self._root).children[node.start, node.tokens[0]]
            if node.state is not None:
                self._n_ram_bytes -= node.n_bytes
            self._states.remove(node.id)


def identity(parent: str, start: int, tokens: list[int]) -> str:
    """A name for a node: equal names mean equal prefixes."""
    return hashlib.sha256(f"{parent} {start} ".encode() + array("i", tokens).tobytes()).hexdigest()[:32]


def n_common(a: list[int], b: list[int], i: int = 0, j: int = 0) -> int:
    """How many tokens are the same in a[i:] and b[j:] from their beginning on."""
    n, n_most = 0, min(len(a) - i, len(b) - j)
    step = 256
    while n < n_most and step:  # whole blocks compare at native speed
        if a[i + n : i + n + step] == b[j + n : j + n + step] and n + step <= n_most:
            n += step
        else:
            step //= 2
    return n
