"""Random settings, right and wrong: each ends in a dry run or in a message, in seconds and without a traceback.

    python benchmarks/fuzz_settings.py [--count 5000] [--seed 0]

A case is a preset with one to four overrides of random settings. Half of the values are near the bounds of a setting,
the others are of any kind. It prints the cases that crashed or took too long, and exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from leandit.config.describe import tag_of
from leandit.config.fields import ConfigField, walk
from leandit.config.schema import json_schema
from leandit.errors import LeanDiTError
from leandit.presets import run_config
from leandit.run import RunConfig
from leandit.training.dry_run import dry_run

PRESETS = ("tiny", "quickstart", "emoji-pixart", "emoji-ec-dit", "emoji-mmdit", "emoji-dit-air", "scenes-race-air")
MAX_SECONDS = 10
# Values of any kind, as they are written on the command line.
HOSTILE = (
    *("null", "true", "false", "True", "None", "0", "-1", "1", "2", "3", "7", "8", "1.5", "-0.0", "1e400", "-1e400"),
    *("NaN", "Infinity", "1e-300", "1e300", "9" * 30, "9" * 5000, "9223372036854775807", "4294967296", "1000000"),
    *('""', "x", "[]", "{}", "[[]]", "[1,2]", "[1,2,3]", '["a"]', '{"a":1}', '{"type":"x"}', '{"type":7}', "[null]"),
    *('"\\ud800"', '"\\u0000"', '"\\u001b[31m"', "é", "数", "a/b", "../x", "~nobody/x", "x" * 5000, "[" * 5000),
    *("cuda:99", "cuda:" + "9" * 40, "auto", "16", "32", "64", "24x40", "0x0", "0.5", "0.1", "0.999", "10", "100"),
)


@dataclass(frozen=True)
class Case:
    """A preset with overrides, as on the command line."""

    preset: str
    overrides: tuple[str, ...]


class TooLong(BaseException):
    """A case took longer than MAX_SECONDS. Not an Exception, so that nothing catches it on its way."""


def cases(count: int, seed: int, presets: Sequence[str] = PRESETS) -> Iterator[Case]:
    """Yield random cases: the same ones for the same seed."""
    draw = random.Random(seed)
    fields = list(walk(RunConfig))
    present = {preset: _present(preset, fields) for preset in presets}
    for _ in range(count):
        preset = draw.choice(presets)
        pool = present[preset] if draw.random() < 0.7 else fields
        chosen = [draw.choice(pool) for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4)))]
        yield Case(preset, tuple(override for field in chosen for override in _overrides(field, draw)))


def _present(preset: str, fields: list[ConfigField]) -> list[ConfigField]:
    """Return the fields that are values in the configuration of a preset: a change of one is often valid."""
    config = run_config(preset)
    found = []
    for field in fields:
        node: Any = config
        for part in field.key.split(".")[:-1]:
            node = (node or [None])[0] if part == "N" else getattr(node, part, None)
        if type(node) is field.owner and not field.kinds and field.name != "type":
            found.append(field)
    return found


def _overrides(field: ConfigField, draw: random.Random) -> Iterator[str]:
    """Yield an override of a field, often after those that choose the kind of its table."""
    key, table = field.key.replace(".N", ".0"), field.key.rpartition(".")[0].replace(".N", ".0")
    tag = tag_of(field.owner)
    if tag is not None and draw.random() < 0.2:
        yield f"{table}.type={tag}"
    yield f"{key}={_near_bounds(field, draw) if draw.random() < 0.7 else draw.choice(HOSTILE)}"


def _near_bounds(field: ConfigField, draw: random.Random) -> str:
    """Return a choice of a setting, or a number at one of its bounds, beside it or between them."""
    schema = json_schema(field.owner)["properties"][field.name]
    options: list[Any] = [True, False, None]
    for part in [schema, *schema.get("anyOf", [])]:
        options += part.get("enum", [])
        bounds = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
        limits = [part[name] for name in bounds if name in part]
        for bound in limits:
            options += [bound, bound + 1, bound - 1]
        if part.get("type") in ("integer", "number") and limits:
            least, most = min(limits), max(limits)
            middle = [1, 2, 4, 8, 32, draw.uniform(least, most), (least + most) / 2]
            options += [value if part["type"] == "number" else int(value) for value in middle]
    return json.dumps(draw.choice(options))


def outcome(case: Case) -> tuple[str, str]:
    """Return "accepted", "refused", "crashed" or "too long", and the message or the traceback."""

    def stop(*_: object) -> None:
        raise TooLong

    # Processor time, so that a busy machine is not mistaken for a hang, and the clock for whatever only waits.
    before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    signal.alarm(6 * MAX_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            dry_run(run_config(case.preset, list(case.overrides)))
    except LeanDiTError as error:
        return "refused", str(error)
    except TooLong:
        return "too long", traceback.format_exc()
    except Exception:
        return "crashed", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
    return "accepted", ""


def main() -> int:
    """Run the cases; return 1 if any crashed or took too long."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    slowest, started = 0.0, time.process_time()
    for case in cases(options.count, options.seed):
        begun = time.process_time()
        kind, message = outcome(case)
        slowest = max(slowest, time.process_time() - begun)
        counts[kind] += 1
        if kind in ("crashed", "too long"):
            print(
                f"{kind}: {case.preset} {' '.join(repr(text[:200]) for text in case.overrides)}\n{message}", flush=True
            )
    seconds = time.process_time() - started
    print(f"{options.count} cases: {dict(counts)}")
    print(f"{seconds:.0f} s of processor time, {slowest:.1f} s for the slowest case")
    return 1 if counts["crashed"] or counts["too long"] else 0


if __name__ == "__main__":
    sys.exit(main())
