"""What the comparison with peers needs, made once and kept in build/peers: an environment of Python, llama.cpp's programs.

The programs are built from the source package of the llama-cpp-python that Linnet runs on: the very same llama.cpp, tuned
to this machine as ours is. What a thing was made of stands in a stamp beside it; another version, or another processor,
makes it anew.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

from bench.machine import cpu
from bench.stream import ROOT

HOME = ROOT / "build" / "peers"
VENV = HOME / "venv"
PYTHON = VENV / "bin" / "python"
REQUIREMENTS = ROOT / "bench" / "peers" / "requirements.txt"
LLAMA_CPP = "vendor/llama.cpp"
LLAMA_SERVER, LLAMA_BENCH = HOME / "llama-server", HOME / "llama-bench"
PROGRAMS = (LLAMA_SERVER, LLAMA_BENCH)
STEP = re.compile(r"^\[(\d+)/(\d+)\]")  # ninja's way of telling progress
# Static, so that the programs outlive the folder they were built in. No network at any time: no TLS, no page from a hub.
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_NATIVE": "ON",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_ALL_WARNINGS": "OFF",
}


class BuildError(Exception):
    """Something could not be made; the message is a sentence that names the log."""


def environment() -> None:
    """The Python of the module server and of the baseline. Raises BuildError."""
    stamp, state = VENV / "done.stamp", _fingerprint(sys.version, sys.prefix, REQUIREMENTS.read_text())
    if _is(stamp, state):
        return
    print("Installing what the peers need into build/peers/venv, once (torch is large) ...", flush=True)
    HOME.mkdir(parents=True, exist_ok=True)
    venv.create(VENV, with_pip=True, clear=True)
    log = HOME / "venv.log"
    log.unlink(missing_ok=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    run(pip, log, "Installing what the peers need failed")
    # The module server runs on the very library that Linnet runs on: our packages come after the environment's own.
    ours = sysconfig.get_path("purelib")
    packages = next((VENV / "lib").glob("python*/site-packages"))
    (packages / "linnet.pth").write_text(f"{ours}\n")
    stamp.write_text(state)


def programs() -> None:
    """llama-server and llama-bench. Raises BuildError."""
    stamp, state = HOME / "programs.stamp", _fingerprint(version(), cpu(), *map(str, OPTIONS.items()))
    if _is(stamp, state) and all(program.exists() for program in PROGRAMS):
        return
    environment()  # CMake is in it
    print("Building llama-server and llama-bench for this machine: about 10 minutes on 2 cores, once ...", flush=True)
    stamp.unlink(missing_ok=True)
    source = HOME / f"llama.cpp-{version()}"
    if not source.exists():  # else a build that was broken off goes on
        unpack(_source_package(), source)
    log = HOME / "programs.log"
    log.unlink(missing_ok=True)
    for command in commands(source):
        run(command, log, "Building llama-server failed")
    for program in PROGRAMS:
        shutil.copy(source / "build" / "bin" / program.name, program)
    shutil.rmtree(source)
    stamp.write_text(state)


def commands(source: Path) -> list[list[str]]:
    """How CMake is told to build the programs of this folder."""
    folder = source / "build"
    cmake = str(VENV / "bin" / "cmake")
    options = [f"-D{name}={value}" for name, value in OPTIONS.items()]
    ninja = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={VENV / 'bin' / 'ninja'}"]
    return [
        [cmake, "-S", str(source), "-B", str(folder), *ninja, *options],
        [cmake, "--build", str(folder), "--target", *(program.name for program in PROGRAMS)],
    ]


def version() -> str:
    """Of llama-cpp-python, as it is pinned."""
    return pins("llama-cpp-python", file=ROOT / "requirements.txt")["llama-cpp-python"]


def pins(*names: str, file: Path = REQUIREMENTS) -> dict[str, str]:
    """The versions of these packages in a file of requirements. Raises BuildError."""
    found = dict(re.findall(r"^([\w-]+)==(\S+)", file.read_text(), re.MULTILINE))
    if missing := set(names) - set(found):
        raise BuildError(f"{file.name} does not pin {', '.join(sorted(missing))}.")
    return {name: found[name] for name in names}


def unpack(package: Path, folder: Path) -> None:
    """llama.cpp alone, from a source package into the emptied folder. Nothing lands outside it. Raises BuildError."""
    shutil.rmtree(folder, ignore_errors=True)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with tarfile.open(package) as archive:
            wanted = [m for m in archive if "/".join(m.name.split("/")[1:3]) == LLAMA_CPP]
            archive.extractall(part, wanted, filter="data")
        next(part.glob(f"*/{LLAMA_CPP}")).rename(folder)
    except (OSError, tarfile.TarError, StopIteration) as error:
        raise BuildError(f"{package.name} could not be unpacked: {error or 'it has no llama.cpp in it'}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _source_package() -> Path:
    """Fetched once. Raises BuildError."""
    wanted = f"llama-cpp-python=={version()}"
    name = f"llama_cpp_python-{version()}.tar.gz"
    if not (HOME / name).exists():
        command = [str(PYTHON), "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--dest", str(HOME)]
        run(
            [*command, "--no-binary", "llama-cpp-python", wanted],
            HOME / "download.log",
            f"Fetching the source of {wanted} failed",
        )
    return HOME / name


def run(command: list[str], log: Path, failure: str) -> None:
    """Its output in a file, its progress on the screen. Raises BuildError."""
    shown = -1
    with (
        log.open("a") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process,
    ):
        for line in process.stdout or ():
            file.write(line)
            percent = progress(line)
            if percent is not None and percent >= shown + (1 if sys.stdout.isatty() else 10):
                shown = percent
                print(f"  {percent:3d} %", end="\r" if sys.stdout.isatty() else "\n", flush=True)
    if process.returncode != 0:
        raise BuildError(f"{failure}; {log.relative_to(ROOT)} tells why.")


def progress(line: str) -> int | None:
    """Percent done, if this line of a build tells it."""
    found = STEP.match(line)
    return 100 * int(found[1]) // int(found[2]) if found else None


def _is(stamp: Path, state: str) -> bool:
    return stamp.exists() and stamp.read_text() == state


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


if __name__ == "__main__":
    try:
        programs()
    except BuildError as failed:
        sys.exit(str(failed))
