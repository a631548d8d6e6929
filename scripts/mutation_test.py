"""Do the tests notice small mistakes? Mutants of the code that matters most, each tested in a process of its own.

    pip install cosmic-ray
    python scripts/mutation_test.py OUT.jsonl [--count 300] [--seed 0]

A mutant is one change that cosmic-ray's operators make: another operator, number, comparison or branch. COUNT places
are drawn evenly from the files below; changes of annotations alone are left out. OUT gets a line for each mutant: its
change, and whether a test failed (killed), the tests did not end within the limit (timeout, counted as killed) or all
passed (survived). Mutants that OUT has already are not tested again.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
_RUN = ("tests/run", "tests/training/test_resume.py")
TESTS: dict[str, tuple[str, ...]] = {
    **{
        f"moe/{name}.py": ("tests/moe", "tests/integration/test_matrix.py", "tests/probing")
        for name in ("strategies", "losses", "statistics", "threshold")
    },
    **{
        f"diffusion/{name}.py": ("tests/diffusion", "tests/sampling")
        for name in ("samplers/solvers", "samplers/chain", "objectives/rectified_flow", "objectives/ddpm", "path")
    },
    **{f"run/{name}.py": _RUN for name in ("checkpoint", "store", "manifest", "weights")},
}
"""The mutated files below src/leandit, and the tests that run against each, until one fails."""
_SECONDS = 240


def mutants(file: Path) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Return operators and their occurrence numbers by the place (line, column) that they change."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    found: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    nodes = list(ast_nodes(get_ast(file.read_text())))
    for name in sorted(set(operator_names())):
        if "Variable" in name:
            continue  # These need names of variables.
        operator, number = get_operator(name)(), 0
        for node in nodes:
            for start, _ in operator.mutation_positions(node):
                found[start].append((name, number))
                number += 1
    return found


def mutated(file: Path, operator: str, occurrence: int) -> str | None:
    """Return the source with one change, or None if only annotations change or the result is no Python."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = file.read_text()
    changed = mutate_code(source, get_operator(operator)(), occurrence)
    try:
        return None if changed is None or _meaning(changed) == _meaning(source) else changed
    except SyntaxError:
        return None


def _meaning(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if hasattr(node, name) and not (isinstance(node, ast.AnnAssign) and "Config" in source):
                setattr(node, name, ast.Constant(0) if name == "annotation" else None)
    return ast.dump(tree)


def tested(tree: Path, tests: tuple[str, ...]) -> tuple[str, str]:
    """Run the tests in a fork, which has torch and pytest already, and return the outcome and the test that failed."""
    log = tree / "log.txt"
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with log.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        os.chdir(tree)
        sys.path.insert(0, str(tree / "src"))
        os.environ["PYTHONPATH"] = str(tree / "src")
        import pytest

        code = 3
        try:
            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))
        finally:
            os._exit(code)
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            failed = [
                line for line in log.read_text(errors="replace").splitlines() if line.startswith(("FAILED", "ERROR"))
            ]
            return ("survived" if status == 0 else "killed"), (failed or [f"exit status {status}"])[0][:200]
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "timeout", ""


def main() -> None:
    """Test the mutants that are not in OUT yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    places = [
        (name, place, changes)
        for name in TESTS
        for place, changes in sorted(mutants(ROOT / "src/leandit" / name).items())
    ]
    dice.shuffle(places)
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = {(line["file"], line["operator"], line["occurrence"]) for line in known}
    outcomes = Counter(line["outcome"] for line in known)

    import beartype  # noqa: F401
    import jaxtyping  # noqa: F401
    import numpy  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import safetensors  # noqa: F401
    import torch  # noqa: F401

    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    tree = Path(tempfile.mkdtemp())
    for part in ("src", "tests", "benchmarks", "scripts"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    tried = 0
    for name, place, changes in places:
        if tried >= options.count:
            break
        file = ROOT / "src/leandit" / name
        operator, occurrence = dice.choice(changes)
        code = mutated(file, operator, occurrence)
        if code is None:
            continue
        tried += 1
        if (name, operator, occurrence) in done:
            continue
        target = tree / "src/leandit" / name
        target.write_text(code)
        begun = time.monotonic()
        outcome, why = tested(tree, TESTS[name])
        shutil.copy(file, target)
        diff = list(difflib.unified_diff(file.read_text().split("\n"), code.split("\n"), lineterm="", n=0))[3:]
        line = {"file": name, "line": place[0], "operator": operator, "occurrence": occurrence, "diff": diff}
        line |= {"outcome": outcome, "by": why, "seconds": round(time.monotonic() - begun, 1)}
        with options.out.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        outcomes[outcome] += 1
        print(f"{tried}/{options.count} {dict(outcomes)} {name}:{place[0]} {outcome}", flush=True)
    shutil.rmtree(tree)


if __name__ == "__main__":
    main()
