"""What has been read before: a tree of token prefixes whose computed states (KV) are kept in memory and on disk.

A radix tree in which a node is never split: a node holds the state of the tokens from `start` on, and a prompt that
parts from it in the middle hangs on it at that position. So a conversation is the path from the root to its last node,
each turn adds one node with the new tokens only, and what many conversations share (a system prompt) is held once.

        <s>You are helpful. <|user|> Hi <|assistant|> Hello!          one node
                                   \\ What is 2+2? ...                 hangs on it at position 9, holds the rest

Using a node makes it younger than all below it, also on disk. So the least recently used node is always a leaf, and what is
shared outlives what is not. Nothing public hangs on what is private: that is not there any more after a restart. The tree is
a table of SQLite's, not of objects: a million nodes would fill a gigabyte as objects, the table keeps what it has no room
for in a temporary file. Knows nothing of llama.cpp: a state is bytes. Owned by one thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from engine.states import Record, State, States

log = logging.getLogger("engine")
N_LEAST = 8  # fewer new tokens are not worth a node
N_MOST = 256  # more would be read whole for the sake of the first few of them
TREE_BYTES = 2**25  # of the tree in memory: some ten thousand nodes; more of it lies in a temporary file
ROOT = 0  # the parent of what begins with the first token
TREE = f"""
PRAGMA cache_size = -{TREE_BYTES // 1024};
PRAGMA journal_mode = OFF;
CREATE TABLE node (number INTEGER PRIMARY KEY, id TEXT UNIQUE, parent INTEGER, start INTEGER, first INTEGER, tokens BLOB,
                   n_bytes INTEGER, used INTEGER, private INTEGER);
CREATE UNIQUE INDEX place ON node (parent, start, first);
CREATE INDEX age ON node (used, number DESC);
"""


@dataclass(frozen=True)
class Node:
    """Tokens that follow the parent's prefix of `start` tokens; a copy of its row."""

    number: int  # no other ever gets the same
    id: str  # names the whole prefix
    parent: int
    start: int
    tokens: list[int]
    n_bytes: int  # of their state
    used: int  # when, in ns; no two uses are equal, so that their order is known
    private: bool  # never to be written to disk

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
    """The tree, its states within `ram_bytes` of memory; on disk as far as `states` takes them."""

    def __init__(self, ram_bytes: int, states: States) -> None:
        self._ram_bytes = ram_bytes
        self._n_ram_bytes = 0
        self._states = states
        self._held: OrderedDict[int, tuple[Node, State]] = OrderedDict()  # in memory, the least recently used first
        self._n_made = self._last_use = 0
        self._tree = _empty_tree("")
        with self._guarded():
            self._tree.execute("BEGIN")  # one for all: it is faster
            for record in states.records():
                if not self._take(record):
                    states.remove(record.id)  # what it follows is gone: nothing can reach it
            self._tree.execute("COMMIT")
            self._shrink_disk()

    def match(self, tokens: list[int]) -> list[Piece]:
        """The longest known prefix of the tokens, from the root on."""
        path: list[Piece] = []
        with self._guarded():
            path += list(self._match(tokens))  # all of it, or nothing
        return path

    def read(self, piece: Piece) -> State | None:
        """A piece's state; None when it cannot be read any more."""
        node = piece.node
        held = self._held.get(node.number)
        state = held[1] if held else self._states.read(node.id)
        if state is None or len(state) != node.n_bytes:
            return None
        if not held and node.n_bytes <= self._ram_bytes:
            self._hold(node, state)
        return state

    def use(self, path: list[Piece]) -> None:
        """Notes that these were used just now."""
        with self._guarded():
            self._touch(path)
            self._shrink_ram()

    def forget(self, piece: Piece) -> None:
        """Takes a piece out whose state is of no use, and all that hangs on it: nothing could reach it."""
        with self._guarded():
            self._forget(piece.node)

    def add(self, tokens: list[int], state_of: Callable[[int, int], State], private: bool = False) -> None:
        """Keeps the state of these tokens, as far as it is not known yet, in nodes of at most N_MOST tokens.

        `state_of` gives the state of the positions from one number to before another. `private`: in memory alone; what of
        it others have read as well is not private any more.
        """
        path = self.match(tokens)
        with self._guarded():
            if not private:
                path = self._publish(path, len(tokens))
            start = path[-1].stop if path else 0
            while self._ram_bytes and len(tokens) - start >= N_LEAST:
                stop = min(len(tokens), (start // N_MOST + 1) * N_MOST)
                state = state_of(start, stop)
                if len(state) > self._ram_bytes:
                    break
                node = self._hang(path[-1].node if path else None, start, tokens[start:stop], len(state), 0, private)
                self._hold(node, state)
                path.append(Piece(node, stop))
                start = stop
        self.use(path)

    def write(self) -> None:
        """Begins to write what is not on disk yet: for when nothing else is to do."""
        room = self._states.limit_bytes
        with self._guarded():
            for node, state in reversed(self._held.values()):
                room -= node.n_bytes
                if room < 0:
                    break  # older ones would only be written to be removed again
                self._write(node, state)
            self._shrink_disk()

    def close(self) -> None:
        """Lets go of the tree and its temporary file."""
        self._tree.close()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Where the tree fails (its file on a full disk) an empty one in memory takes its place until the next start."""
        try:
            yield
        except sqlite3.Error as error:
            log.warning("What was read before is forgotten and will be computed again: %s", error)
            self._tree.close()
            self._tree = _empty_tree(":memory:")
            self._held.clear()
            self._n_ram_bytes = 0

    def _match(self, tokens: list[int]) -> Iterator[Piece]:
        parent, n = ROOT, 0
        while n < len(tokens) and (node := self._node("parent = ? AND start = ? AND first = ?", parent, n, tokens[n])):
            parent = node.number
            n += n_common(node.tokens, tokens, 0, n)
            yield Piece(node, n)

    def _node(self, where: str, *values: object) -> Node | None:
        """The first row of which this is true."""
        columns = "number, id, parent, start, tokens, n_bytes, used, private"
        row = self._tree.execute(f"SELECT {columns} FROM node WHERE {where} LIMIT 1", values).fetchone()
        if not row:
            return None
        number, id, parent, start, tokens, n_bytes, used, private = row
        return Node(number, id, parent, start, array("i", tokens).tolist(), n_bytes, used, bool(private))

    def _take(self, record: Record) -> bool:
        """Hangs what was found on disk to what it follows; whether that is there, and it is what it says it is."""
        parent = self._node("id = ?", record.parent)
        first, last = (parent.start, parent.stop) if parent else (0, 0)
        if not record.tokens or not first <= record.start <= last or record.parent != (parent.id if parent else ""):
            return False
        place = (parent.number if parent else ROOT, record.start, record.tokens[0])
        taken = self._node("parent = ? AND start = ? AND first = ?", *place)
        if taken or record.id != identity(record.parent, record.start, record.tokens):
            return False
        self._hang(parent, record.start, record.tokens, record.n_bytes, record.used, private=False)
        self._last_use = max(self._last_use, record.used)
        return True

    def _publish(self, path: list[Piece], n_tokens: int) -> list[Piece]:
        """Makes a prompt's nodes public; one that it leaves in its middle cannot be, and makes room for the prompt's own."""
        for i, piece in enumerate(path):
            if not piece.node.private:
                continue
            if piece.stop < piece.node.stop:
                if n_tokens - piece.node.start >= N_LEAST:  # else none will come
                    self._forget(piece.node)
                return path[:i]
            node = replace(piece.node, private=False)
            self._tree.execute("UPDATE node SET private = 0 WHERE number = ?", (node.number,))
            if held := self._held.get(node.number):
                self._held[node.number] = node, held[1]
            path[i] = Piece(node, piece.stop)
        return path

    def _hang(self, parent: Node | None, start: int, tokens: list[int], n_bytes: int, used: int, private: bool) -> Node:
        self._n_made += 1
        id = identity(parent.id if parent else "", start, tokens)
        node = Node(self._n_made, id, parent.number if parent else ROOT, start, tokens, n_bytes, used, private)
        row = (node.number, id, node.parent, start, tokens[0], array("i", tokens).tobytes(), n_bytes, used, private)
        self._tree.execute("INSERT INTO node VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return node

    def _hold(self, node: Node, state: State) -> None:
        self._held[node.number] = node, state
        self._n_ram_bytes += node.n_bytes

    def _let_go(self, node: Node) -> None:
        if self._held.pop(node.number, None):
            self._n_ram_bytes -= node.n_bytes

    def _write(self, node: Node, state: State) -> None:
        if not (node.private or self._states.holds(node.id)) and (now := self._node("number = ?", node.number)):
            parent = self._node("number = ?", node.parent)
            record = Record(node.id, parent.id if parent else "", node.start, node.tokens, node.n_bytes, now.used)
            self._states.write(record, state)

    def _touch(self, path: list[Piece]) -> None:
        for piece in reversed(path):  # so that parents become younger than their children
            self._last_use = max(time.time_ns(), self._last_use + 1)
            number = piece.node.number
            if self._tree.execute("UPDATE node SET used = ? WHERE number = ?", (self._last_use, number)).rowcount:
                self._states.touch(piece.node.id, self._last_use)
            if number in self._held:
                self._held.move_to_end(number)

    def _shrink_ram(self) -> None:
        """Lets the least recently used go from memory, to disk where they can."""
        while self._n_ram_bytes > self._ram_bytes:
            node, state = next(iter(self._held.values()))
            self._write(node, state)
            if self._states.holds(node.id):
                self._let_go(node)
            else:
                self._forget(node)
        self._shrink_disk()

    def _shrink_disk(self) -> None:
        """Lets the least recently used go from disk."""
        used, number = -1, 0
        # Some file systems know the time only roughly: of the same age is first who came last, a child before its parent.
        later = "used >= ? AND (used > ? OR number < ?) ORDER BY used, number DESC"
        while self._states.full() and (node := self._node(later, used, used, number)):
            used, number = node.used, node.number
            self._states.remove(node.id)
            if node.number not in self._held:
                self._forget(node)

    def _forget(self, node: Node) -> None:
        going = [node]  # a path down the tree; no recursion, for it may be thousands of nodes long
        while going:
            if child := self._node("parent = ?", going[-1].number):
                going.append(child)
                continue
            node = going.pop()
            self._let_go(node)
            if self._tree.execute("DELETE FROM node WHERE number = ?", (node.number,)).rowcount:
                self._states.remove(node.id)


def _empty_tree(path: str) -> sqlite3.Connection:
    tree = sqlite3.connect(path, isolation_level=None)
    tree.executescript(TREE)
    return tree


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
