"""How fast this machine multiplies a model's weights with one vector, which is nearly all of what a token costs.

    python -m engine.native.speed N_THREADS     prints one line of JSON within about two seconds

ggml, the part of llama.cpp that computes, is called directly: no model is needed, and its kernels, its own order of the
weights and its way to wait for threads are those of a real step. Each type of weights gets matrices of its own, together
far more than the caches hold. Of many short runs the one counts that a quarter of them beat: the machine may be shared, so
that the mean would be too slow, and no model keeps up with the fastest. The variables of engine.threads must be set before
it starts. Knows nothing of models.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from typing import Any

import llama_cpp
import llama_cpp.llama_cpp as binding

from engine.governor import Others

# GGML's number of each type. Other types are estimated from these (models.fit).
TYPES = {"Q4_K": 12, "Q6_K": 14, "Q8_0": 8, "F16": 1}
F32 = 0
COLUMNS, ROWS = 2048, 4096  # of a matrix
TYPE_BYTES = 40_000_000  # of matrices of each type; all of them pass between two runs of one type
SMALL_ROWS, N_SMALL = 256, 64  # such a multiply mostly begins, spreads its work over the threads and waits for them
SMALL = "small"
MEASURE_S = 1.3
FILL = 0x21  # in half precision 0x2121 is 0.01: as a scale, neither infinite nor so small that sums become denormal
VECTOR_FILL = 0x3F  # in single precision 0x3f3f3f3f is 0.75
CONTEXT_BYTES = 2**20  # for descriptions of tensors
CPU_DEVICE = 0  # ggml_backend_dev_type


class SpeedError(Exception):
    """It cannot be measured here; the message is for the log."""


class _Params(ctypes.Structure):
    """ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """One of ggml's. Looked up through libllama: opened by its own file name, a library of the binding's folder can be a
    second copy of itself, which does not know the other one's order of the weights and computes slowly."""
    try:
        function = getattr(binding._lib, name)
    except AttributeError as error:
        raise SpeedError(f"This llama.cpp has no {name}.") from error
    function.restype, function.argtypes = result, arguments
    return function


@dataclass(frozen=True)
class _Work:
    """Multiplies that are run together."""

    run: Callable[[], None]
    n_bytes: int  # of weights


class _Ggml:
    """The CPU as llama.cpp sees it. What it takes is given back when the process ends."""

    def __init__(self, n_threads: int) -> None:
        self._device = _function("ggml_backend_dev_by_type", c_void_p, c_int)(CPU_DEVICE)
        if not self._device:
            raise SpeedError("llama.cpp knows no CPU.")
        registry = _function("ggml_backend_dev_backend_reg", c_void_p, c_void_p)(self._device)
        self._address = _function("ggml_backend_reg_get_proc_address", c_void_p, c_void_p, c_char_p)
        set_threads = self._address(registry, b"ggml_backend_set_n_threads")
        self._backend = _function("ggml_backend_dev_init", c_void_p, c_void_p, c_char_p)(self._device, None)
        if not self._backend or not set_threads:
            raise SpeedError("llama.cpp cannot compute on this CPU.")
        ctypes.CFUNCTYPE(None, c_void_p, c_int)(set_threads)(self._backend, n_threads)
        plain = _function("ggml_backend_dev_buffer_type", c_void_p, c_void_p)(self._device)
        self._kinds = [*self._rearranging(registry), plain]  # of memory, the one that llama.cpp prefers first

    def _rearranging(self, registry: int) -> list[int]:
        """Kinds of memory in which some types of weights are kept in an order that suits the CPU."""
        address = self._address(registry, b"ggml_backend_dev_get_extra_bufts")
        found = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(address)(self._device) if address else None
        kinds: list[int] = []
        while found and (kind := found[len(kinds)]):
            kinds.append(kind)
        return kinds

    def work(self, kind: int, rows: int, n: int) -> _Work:
        """n matrices (COLUMNS, rows) of a type of weights, each of which is multiplied with a vector."""
        for memory in self._kinds:
            matrices, vector, products = self._tensors(kind, rows, n, memory)
            if self._supports(products[0]):
                break
        else:
            raise SpeedError(f"llama.cpp cannot multiply weights of type {kind}.")
        n_bytes = _function("ggml_nbytes", c_size_t, c_void_p)(matrices[0])
        for tensor, size, fill in [(matrix, n_bytes, FILL) for matrix in matrices] + [(vector, 4 * COLUMNS, VECTOR_FILL)]:
            content = ctypes.create_string_buffer(size)  # not one for all: they are many megabytes, and soon free again
            ctypes.memset(content, fill, size)
            _function("ggml_backend_tensor_set", None, c_void_p, c_void_p, c_size_t, c_size_t)(tensor, content, 0, size)
        graph = _function("ggml_new_graph", c_void_p, c_void_p)(self._context())
        for product in products:
            _function("ggml_build_forward_expand", None, c_void_p, c_void_p)(graph, product)
        compute = _function("ggml_backend_graph_compute", c_int, c_void_p, c_void_p)

        def run() -> None:
            if compute(self._backend, graph) != 0:
                raise SpeedError("llama.cpp failed to compute.")

        return _Work(run, n * n_bytes)

    def _tensors(self, kind: int, rows: int, n: int, memory: int) -> tuple[list[int], int, list[int]]:
        """Matrices in this kind of memory, a vector, and what will be their products."""
        new = _function("ggml_new_tensor_2d", c_void_p, c_void_p, c_int, c_int64, c_int64)
        multiply = _function("ggml_mul_mat", c_void_p, c_void_p, c_void_p, c_void_p)
        weights, others = self._context(), self._context()
        matrices = [new(weights, kind, COLUMNS, rows) for _ in range(n)]
        vector = new(others, F32, COLUMNS, 1)
        products = [multiply(others, matrix, vector) for matrix in matrices]
        allocate = _function("ggml_backend_alloc_ctx_tensors_from_buft", c_void_p, c_void_p, c_void_p)
        if not (allocate(weights, memory) and allocate(others, self._kinds[-1])):  # untouched memory costs nothing
            raise SpeedError("There is no memory to measure with.")
        return matrices, vector, products

    def _supports(self, product: int) -> bool:
        return bool(_function("ggml_backend_dev_supports_op", c_bool, c_void_p, c_void_p)(self._device, product))

    def _context(self) -> int:
        context = _function("ggml_init", c_void_p, _Params)(_Params(CONTEXT_BYTES, None, True))
        if not context:
            raise SpeedError("There is no memory to measure with.")
        return int(context)


def measure(n_threads: int, seconds: float = MEASURE_S) -> dict[str, Any]:
    """Bytes of weights a second by type, seconds of a small multiply, cores that others kept busy. Raises SpeedError."""
    silence = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silence, c_void_p(0))
    ggml = _Ggml(n_threads)
    works: dict[str, _Work] = {}
    for name, kind in TYPES.items():
        row_bytes = _function("ggml_row_size", c_size_t, c_int, c_int64)(kind, COLUMNS)
        works[name] = ggml.work(kind, ROWS, TYPE_BYTES // (row_bytes * ROWS))
    small = ggml.work(TYPES["Q4_K"], SMALL_ROWS, N_SMALL)
    runs: dict[str, list[float]] = {name: [] for name in [*works, SMALL]}  # seconds
    others = Others()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:  # by turns, so that what others do in between is not one type's bad luck
        for name, work in [*works.items(), (SMALL, small)]:
            started = time.perf_counter()
            work.run()
            runs[name].append(time.perf_counter() - started)
    usual = {name: sorted(times)[len(times) // 4] for name, times in runs.items()}
    rates = {name: work.n_bytes / usual[name] for name, work in works.items()}
    return {"multiply_bytes_per_s": rates, "op_s": usual[SMALL] / N_SMALL, "others_cores": others()}


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 1 or not arguments[0].isdecimal() or not int(arguments[0]):
        sys.stderr.write("usage: python -m engine.native.speed N_THREADS\n")
        return 2
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")  # native code may print: only the measures go to standard output
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        out.write(json.dumps(measure(int(arguments[0]))) + "\n")
        out.flush()
    except SpeedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
