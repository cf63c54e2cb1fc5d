"""Makes .venv with everything Linnet needs; quick when nothing changed. Standard library only: it runs before all else.

python3 scripts/setup.py          what running needs
python3 scripts/setup.py --dev    also what tests and tools need: Chromium, and packages of npm's where npm is there
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"
OLDEST_PYTHON = (3, 11)
STEP = re.compile(r"^\s*\[\s*(\d+)/(\d+)\]|^\s*\[\s*(\d+)%\]")  # ninja's and make's way of telling progress
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NODE_PROJECT = ROOT / "tests" / "node"
NODE = ROOT / "build" / "node"  # where its packages go
# llama.cpp is tuned to the machine it is built on. Its vision library is not used here and takes a minute.
BUILD_OPTIONS = "-DLLAVA_BUILD=OFF"


def main(dev: bool) -> None:
    """Does what is missing. Exits with a sentence when something cannot be done."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(f"Linnet needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
    if not up_to_date(dev):
        for stamp in VENV.glob("*.stamp"):
            stamp.unlink()  # whatever happens now, what they say is no longer sure
        make_venv()
        install_engine()
        requirements = "requirements-dev.txt" if dev else "requirements.txt"
        print(f"Installing {requirements} ...", flush=True)
        pip("-r", requirements)
        for kind in ("run", "dev") if dev else ("run",):
            (VENV / f"{kind}.stamp").write_text(fingerprint())
    if dev:
        install_browser()
        install_node_packages()


def up_to_date(dev: bool) -> bool:
    """Whether this very thing was installed before, to the end."""
    stamp = VENV / ("dev.stamp" if dev else "run.stamp")
    return stamp.exists() and stamp.read_text() == fingerprint()


def fingerprint() -> str:
    """Changes when the requirements or the Python do."""
    texts = [path.read_text() for path in sorted(ROOT.glob("requirements*.txt"))]
    return hashlib.sha256("".join([version(), *texts]).encode()).hexdigest()


def version() -> str:
    """Of this Python, as far as packages care."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def make_venv() -> None:
    """An environment of our own, so that nothing of the system is changed."""
    config = VENV / "pyvenv.cfg"
    made_by_this_python = config.exists() and f"version = {version()}." in config.read_text()
    if made_by_this_python and (VENV / "bin" / "pip").exists():  # pip comes last: without it the making was broken off
        return
    print("Making .venv ...", flush=True)
    try:
        venv.create(VENV, with_pip=True, clear=True)
    except (OSError, subprocess.CalledProcessError):
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit("Python cannot make virtual environments here; on Debian and Ubuntu: apt install python3-venv")


def install_engine() -> None:
    """llama-cpp-python is compiled on this machine, which takes minutes: say so, show progress, tell what is missing."""
    engine = next(
        line.split()[0]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line.startswith("llama-cpp-python")
    )
    name, version = engine.split("==")
    found = subprocess.run([PYTHON, "-m", "pip", "show", name], capture_output=True, text=True, check=False)
    if f"Version: {version}\n" in found.stdout:
        return
    compilers = (os.environ.get("CC", "cc"), os.environ.get("CXX", "c++"))
    missing = [command for command in compilers if not shutil.which(command.split()[0])]
    if missing:
        sys.exit(f"No C/C++ compiler ({', '.join(missing)} not found); on Debian and Ubuntu: apt install build-essential")
    print(f"Installing {engine}. Building it for this machine takes about 5 minutes on 2 cores, once ...", flush=True)
    pip("--verbose", engine)


def pip(*arguments: str) -> None:
    """pip install, its output in a file, its progress on the screen."""
    environment = os.environ | {"CMAKE_ARGS": os.environ.get("CMAKE_ARGS", BUILD_OPTIONS)}
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    shown = -1
    with (
        LOG.open("w") as log,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        for line in process.stdout or ():
            log.write(line)
            percent = progress(line)
            if percent is not None and percent >= shown + (1 if sys.stdout.isatty() else 10):
                shown = percent
                print(f"  {percent:3d} %", end="\r" if sys.stdout.isatty() else "\n", flush=True)
    if process.returncode != 0:
        print("".join(LOG.read_text().splitlines(keepends=True)[-15:]), file=sys.stderr)
        sys.exit(f"Installing failed; the lines above are the end of {LOG.relative_to(ROOT)}.")


def progress(line: str) -> int | None:
    """Percent done, if this line of a build tells it."""
    found = STEP.match(line)
    if not found:
        return None
    done, total, percent = found.groups()
    return int(percent) if percent else 100 * int(done) // int(total)


def install_browser() -> None:
    """The tests drive a real browser. Debian's package is installed where that needs nobody's password."""
    if any(map(shutil.which, BROWSERS)):
        return
    if shutil.which("apt-get") and os.geteuid() == 0:
        print("Installing chromium for the browser tests ...", flush=True)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "chromium"]):
            subprocess.run(["apt-get", "-qq", *command], env=environment, stdout=subprocess.DEVNULL, check=False)
    if not any(map(shutil.which, BROWSERS)):
        print("The browser tests will be skipped: install Chromium for them (Debian: sudo apt install chromium).")


def install_node_packages() -> None:
    """The tests run a Node program, and axe-core in the browser. Only where npm is there: Node itself is not installed."""
    lock = (NODE_PROJECT / "package-lock.json").read_text()
    stamp = NODE / "done.stamp"
    if stamp.exists() and stamp.read_text() == lock:
        return
    npm = shutil.which("npm")
    if not npm or not shutil.which("node"):
        print("The tests with packages of npm's will be skipped: install Node 20 or newer, with npm, for them.")
        return
    print("Installing OpenAI's client for Node, and axe-core ...", flush=True)
    NODE.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE_PROJECT / name, NODE)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"The tests with packages of npm's will be skipped: they could not be installed.\n{done.stderr[-500:]}")
        return
    stamp.write_text(lock)


if __name__ == "__main__":
    main(dev="--dev" in sys.argv[1:])
