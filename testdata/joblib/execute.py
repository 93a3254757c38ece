"""Run the payloads that attacks.py wrote, to prove that they are real: execute.py [--all] DIR

Every file that expected.txt says is run by joblib or pickle is loaded by a process
of its own, in a temporary directory, with limits on memory and time; afterwards
its marker must be there. With --all the others are loaded as well, and must not
leave one.
"""

import argparse
import importlib.util
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

MARKER = "galley-marker"
MEMORY = 2 << 30
SECONDS = 20
LEAST = 60
LOADERS = {
    "joblib": "import sys, joblib; joblib.load(sys.argv[1])",
    "pickle": "import sys, pickle; pickle.load(open(sys.argv[1], 'rb'))",
}
PACKAGES = {"sklearn": "scikit-learn"}


class Run(NamedTuple):
    file: Path
    loader: str
    expected: bool
    needs: str


def runs(directory: Path, everything: bool) -> list[Run]:
    """Read expected.txt."""
    found = []
    for line in (directory / "expected.txt").read_text(encoding="utf-8").splitlines():
        columns = line.partition(" #")[0].split(" ")
        name, _, executes, *needs = columns
        for loader in LOADERS:
            expected = executes in (loader, "both")
            if expected or everything:
                found.append(Run(directory / name, loader, expected, "".join(needs)))
    return found


def version(name: str) -> str:
    """Return the version of Python or of an installed package, or an empty string."""
    if name == "python":
        return platform.python_version()
    try:
        return metadata.version(PACKAGES.get(name, name))
    except metadata.PackageNotFoundError:
        return ""


def missing(needs: str) -> str:
    """Return which of the comma-separated needs is not met, or an empty string."""
    for need in filter(None, needs.split(",")):
        name, operator, wanted = re.fullmatch(r"([\w.-]+?)(?:(<|>=|==)([\d.]+))?", need).groups()
        if not operator:
            try:
                found = importlib.util.find_spec(name) is not None
            except ImportError:
                found = False
            if not found:
                return need
            continue
        have = [int(n) for n in re.findall(r"\d+", version(name))]
        want = [int(n) for n in wanted.split(".")]
        met = {"<": have < want, ">=": have >= want, "==": have[: len(want)] == want}
        if not have or not met[operator]:
            return need
    return ""


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def execute(run: Run) -> tuple[bool, str]:
    """Load a file; return whether its payload ran, and how the process ended."""
    with tempfile.TemporaryDirectory() as directory:
        for file in [run.file, *run.file.parent.glob("companion.*")]:
            shutil.copy(file, directory)
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "HOME": directory}
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", LOADERS[run.loader], run.file.name],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=limit,
            start_new_session=True,
        )
        try:
            error = process.communicate(timeout=SECONDS)[1]
            last = (error.decode(errors="replace").splitlines() or [""])[-1][:100]
            ended = f"status {process.returncode} {last}".rstrip()
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            ended = "timeout"
        marker = Path(directory, MARKER)
        # A payload may have started a process that has not come to it yet.
        for _ in range(20 if run.expected else 2):
            if marker.exists():
                return True, ended
            time.sleep(0.1)
        return False, ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--all", action="store_true", help="load the other files as well")
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()

    todo, left_out = [], 0
    for run in runs(arguments.directory.resolve(), arguments.all):
        if run.expected and (need := missing(run.needs)):
            print(f"{run.file.name} {run.loader}: left out, needs {need}")
            left_out += 1
        else:
            todo.append(run)
    wrong, executed = [], set()
    with ThreadPoolExecutor(2) as pool:
        for run, (marked, ended) in zip(todo, pool.map(execute, todo), strict=True):
            what = "executed" if marked else "did not execute"
            print(f"{run.file.name} {run.loader}: {what} ({ended})")
            if marked:
                executed.add(run.file.name)
            if marked != run.expected:
                wrong.append(f"{run.file.name} {run.loader}: {what}")
    print(f"{len(executed)} files executed, {left_out} left out, {len(wrong)} not as expected")
    if wrong:
        sys.exit("\n".join(wrong))
    if len(executed) < LEAST:
        sys.exit(f"fewer than {LEAST} files executed")


if __name__ == "__main__":
    main()
