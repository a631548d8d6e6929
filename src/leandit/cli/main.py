"""Parse the command line, run the command, and turn mistakes into messages and exit codes."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from leandit.cli.output import accept_any_text, discard_output
from leandit.errors import LeanDiTError, printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Return 0, 2 for a mistake that the user can correct, 130 or 143 after a signal."""
    accept_any_text()
    options = parse(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except LeanDiTError as error:
        print(f"leandit: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("leandit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # A reader that stops early, as in `leandit models | head`, is not an error for commands that only print. Other
        # commands return the exit code of a shell.
        discard_output()
        return 0 if options.only_prints else 128 + signal.SIGPIPE


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line. Overrides can be before and after options, which argparse by itself does not accept."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "overrides") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


class _Parser(argparse.ArgumentParser):
    """Repeats no control characters of the command line. Parsers of commands are of this class, too."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; it imports neither torch nor the rest of the package."""
    parser: argparse.ArgumentParser = _Parser(
        prog="leandit",
        description="Lean diffusion transformers: experts race for tokens, layers share weights.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_sample(commands)
    _add_evaluate(commands)
    _add_probe(commands)
    _add_serve(commands)
    _add_models(commands)
    _add_config(commands)
    return parser


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    train = commands.add_parser(
        "train",
        help="train a preset, with overrides",
        description="Train a run.",
        epilog="`leandit config doc train.steps` explains a setting and says whether it may change on --resume; "
        "`leandit config show tiny` prints all settings with comments; `leandit config schema` is for editors.",
    )
    train.add_argument("preset", help="a preset such as quickstart, or a .json or .toml file")
    train.add_argument("overrides", nargs="*", metavar="a.b.c=value", help="change the config, as in train.steps=100")
    train.add_argument("--out", help="the run's folder; default: the first free one of runs/NAME, runs/NAME-2, ...")
    train.add_argument("--resume", action="store_true", help="continue from the newest intact checkpoint")
    train.add_argument("--dry-run", action="store_true", help="show the config and its cost, and stop")
    train.set_defaults(run=_command("train"), only_prints=False)


def _add_sample(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sample = commands.add_parser("sample", help="draw pictures from a run", description="Draw pictures from a run.")
    sample.add_argument("folder", metavar="RUN", help="a run's folder, or one of its checkpoints")
    sample.add_argument("--labels", help="classes by number or name, as in 3,7 or heart,cat; default: all")
    prompts = sample.add_mutually_exclusive_group()
    prompts.add_argument("--prompts", nargs="+", metavar="TEXT", help='for a text model, as in "red apple, noto emoji"')
    prompts.add_argument("--prompts-file", metavar="FILE", help="prompts from a UTF-8 file, one per line")
    sample.add_argument("--seeds", default="0-15", help="as in 0-63 or 1,5,9 (default: %(default)s)")
    sample.add_argument("--steps", type=int, help="steps of the sampler; default: the run's")
    sample.add_argument("--guidance", type=float, help="scale of the guidance, 1 is none; default: the run's")
    sample.add_argument(
        "--size", metavar="HEIGHTxWIDTH", help="as in 48x32, or one number for a square; default: the run's"
    )
    sample.add_argument("--compute", type=float, default=1.0, help="share of the trained experts per token, as in 0.5")
    sample.add_argument("--out", help="folder for the pictures; default: samples in the run's folder")
    sample.add_argument("--batch-size", type=int, default=64, help="pictures at a time (default: %(default)s)")
    sample.add_argument("--weights", default="ema", help="ema or model (default: %(default)s)")
    sample.add_argument("--precision", default="fp32", help="of the network: fp32 or bf16 (default: %(default)s)")
    sample.add_argument("--compile", action="store_true", help="compile the network first: faster for many pictures")
    sample.add_argument("--npz", action="store_true", help="also write samples.npz with all pictures and labels")
    sample.set_defaults(run=_command("sample"), only_prints=False)


def _add_evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="measure the pictures of a run", description="Measure the pictures of a run."
    )
    evaluate.add_argument("folder", nargs="?", metavar="RUN", help="a run's folder, or one of its checkpoints")
    evaluate.add_argument("metrics", nargs="*", metavar="METRIC", help="default: kid fd precision_recall")
    evaluate.add_argument("--num-samples", type=int, default=1000, help="pictures to draw (default: %(default)s)")
    evaluate.add_argument("--reference", metavar="DATA", help="a folder, or a source as JSON; default: training data")
    evaluate.add_argument("--steps", type=int, help="steps of the sampler; default: the run's")
    evaluate.add_argument("--guidance", type=float, help="scale of the guidance, 1 is none; default: the run's")
    evaluate.add_argument("--weights", default="ema", help="ema or model (default: %(default)s)")
    evaluate.add_argument("--batch-size", type=int, default=64, help="pictures at a time (default: %(default)s)")
    evaluate.add_argument("--out", help="folder for pictures and result; default: evaluation in the run's folder")
    evaluate.add_argument(
        "--weights-from", action="append", default=[], metavar="NAME=PATH", help="as in inception=weights.pth"
    )
    evaluate.add_argument("--download", action="store_true", help="download published weights that have no path")
    evaluate.add_argument("--compare", nargs=2, metavar="RESULT", help="compare two results instead of measuring")
    evaluate.add_argument("--anyway", action="store_true", help="compare results that are not comparable")
    evaluate.set_defaults(run=_command("evaluate"), only_prints=False)


def _add_probe(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    probe = commands.add_parser("probe", help="report the routing of a run", description="Report the routing of a run.")
    probe.add_argument("folder", nargs="?", metavar="RUN", help="a run's folder, or one of its checkpoints")
    probe.add_argument("--compare", nargs=2, metavar=("A", "B"), help="compare two runs in one report")
    probe.add_argument("--by", metavar="AXES", help="split by layer,timestep,class,position,caption; default: all")
    chosen = probe.add_mutually_exclusive_group()
    chosen.add_argument("--labels", help="classes by number or name, as in 3,7 or heart,cat; default: the first 8")
    chosen.add_argument("--prompts", nargs="+", metavar="TEXT", help="for a text model; default: its config's prompts")
    probe.add_argument("--seeds", default="0-1", help="as in 0-3 or 1,5,9 (default: %(default)s)")
    probe.add_argument("--steps", type=int, help="steps of the sampler; default: the run's")
    probe.add_argument(
        "--pictures",
        type=int,
        default=64,
        metavar="N",
        help="measure on N real pictures whether experts go to detail, 0 for none (default: %(default)s)",
    )
    probe.add_argument("--guidance", type=float, help="scale of the guidance, 1 is none; default: the run's")
    probe.add_argument("--weights", default="ema", help="ema or model (default: %(default)s)")
    probe.add_argument("--out", help="folder for the report; default: probe in the run's folder")
    probe.set_defaults(run=_command("probe"), only_prints=False)


def _add_serve(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    serve = commands.add_parser("serve", help="draw on a web page", description="Serve a page that draws from runs.")
    serve.add_argument("folders", nargs="+", metavar="RUN", help="runs to choose from")
    serve.add_argument("--port", type=int, default=7860, help="0 chooses a free port (default: %(default)s)")
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0 is all addresses (default: %(default)s)")
    serve.add_argument("--queue", type=int, default=8, help="most requests that wait (default: %(default)s)")
    serve.set_defaults(run=_command("serve"), only_prints=False)


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    models = commands.add_parser("models", help="list named models", description="List named models and their cost.")
    models.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    models.set_defaults(run=_command("models"), only_prints=True)


def _add_config(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    config = commands.add_parser("config", help="explain settings", description="Explain the settings of a run.")
    parts = config.add_subparsers(title="what to print", required=True, metavar="WHAT", dest="what")
    parts.add_parser(
        "schema", help="JSON schema of .toml and .json files, for editors", description="Print the schema."
    )
    show = parts.add_parser(
        "show",
        help="a complete configuration with comments, as a .toml file",
        description="Print a complete configuration.",
    )
    show.add_argument("preset", help="a preset such as quickstart, or a .json or .toml file")
    show.add_argument("overrides", nargs="*", metavar="a.b.c=value", help="change the config, as in train.steps=100")
    show.add_argument("--json", action="store_true", help="print JSON, without comments")
    doc = parts.add_parser(
        "doc", help="the meaning of a key", description="Print the meaning, type and default of a key."
    )
    doc.add_argument("key", help="such as train.accumulation, or a table of keys such as model.moe")
    config.set_defaults(run=_command("config"), only_prints=True)


def _command(module: str) -> Callable[[argparse.Namespace], int]:
    """Return the function that imports a command's module and runs it."""

    def run(options: argparse.Namespace) -> int:
        return int(import_module(f"leandit.cli.{module}").run(options))

    return run
