"""Quantizes a GGUF with llama.cpp, as a process of its own: it can be stopped, and where llama.cpp aborts only this ends.

python -m convert.quantize FROM TO NUMBER     prints "3 22" when it begins with the third tensor of 22
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys

import llama_cpp

STEP = re.compile(rb"\[\s*(\d+)/\s*(\d+)\]")
MAX_BYTES = 2**28  # 256 MiB of rows at a time
WARNING = 3  # of llama.cpp's log levels: INFO is 2, ERROR 4 (and WARN 3)


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    try:
        if step := STEP.match(text):
            sys.stdout.write(f"{int(step[1])} {int(step[2])}\n")
            sys.stdout.flush()
        elif level > WARNING:
            sys.stderr.write(text.decode(errors="replace"))
    except OSError:  # nobody listens any more, so nobody wants the file
        os._exit(1)


def main(source: str, target: str, number: str) -> int:
    """llama.cpp's return code: 0 if all is well."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would wait until llama.cpp returns
    llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.max_buf_size = int(number), len(os.sched_getaffinity(0)), MAX_BYTES
    return int(llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
