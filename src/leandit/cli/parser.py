"""The parsers of all commands. They import neither torch nor the rest of the package."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from leandit import __version__
from leandit.errors import printable

_CONFIG = ("schema", "show", "doc")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. Overrides can be before and after options, which argparse by itself does not accept."""
    words = list(arguments)
    named = [place for place, word in enumerate(words) if not word.startswith("-")]
    command, what = ([words[place] for place in named] + ["", ""])[:2]
    if command == "config" and what not in _CONFIG and not {"-h", "--help"} & set(words):
        words.insert(named[0] + 1, "doc")  # `leandit config KEY` is short for `leandit config doc KEY`
    parser = build_parser()
    options, rest = parser.parse_known_args(words)
    if rest and (not hasattr(options, "overrides") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}{_as_settings(options, rest)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


Commands = argparse._SubParsersAction  # of parsers, one for each command


def _as_settings(options: argparse.Namespace, rest: list[str]) -> str:
    """Return how to write options that are no options but may be settings; "" for a command that takes none."""
    names = [word.lstrip("-").partition("=")[0].replace("-", "_") for word in rest if word.startswith("-")]
    if not hasattr(options, "overrides"):
        return ""
    return f"; settings are written as key=value, and `leandit config {names[0]}` finds the key"


class _Parser(argparse.ArgumentParser):
    """Repeats no control characters of the command line. Parsers of commands are of this class, too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        talk = self.add_mutually_exclusive_group()
        # Absent unless given, so that a command does not undo what stands before it.
        given: dict[str, Any] = {"action": "store_true", "default": argparse.SUPPRESS}
        talk.add_argument("-q", "--quiet", **given, help="print only results and errors")
        talk.add_argument("-v", "--verbose", **given, help="also print what is chosen, such as backends")

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; it imports neither torch nor the rest of the package."""
    parser: argparse.ArgumentParser = _Parser(
        prog="leandit",
        description="Lean diffusion transformers: experts race for tokens, layers share weights.",
        epilog="`leandit COMMAND --help` has the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"leandit {__version__}")
    parser.set_defaults(run=None, loads_torch=True)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (_add_train, _add_resume, _add_sample, _add_evaluate, _add_probe, _add_serve, _add_runs, _add_compare):
        add(commands)
    for add in (_add_presets, _add_models, _add_config, _add_completion):
        add(commands)
    for command in commands.choices.values():
        _add_import(command)
    return parser


def _add_train(commands: Commands) -> None:
    train = commands.add_parser(
        "train",
        help="train a preset, with overrides",
        description="Train a run.",
        epilog="`leandit config doc train.steps` explains a setting and says whether it may change on --resume; "
        "`leandit config show tiny` prints all settings with comments; `leandit config schema` is for editors.",
    )
    _add_configuration(train)
    train.add_argument("--out", help="the run's folder; default: the first free one of runs/NAME, runs/NAME-2, ...")
    train.add_argument("--resume", action="store_true", help="continue from the newest intact checkpoint")
    train.add_argument("--dry-run", action="store_true", help="show what the run would cost, and stop")
    train.add_argument("--json", action="store_true", help="with --dry-run: print cost and configuration as JSON")
    train.set_defaults(run=_command("train"), only_prints=False)


def _add_resume(commands: Commands) -> None:
    resume = commands.add_parser(
        "resume",
        help="continue a run",
        description="Continue a run from its newest intact checkpoint.",
        epilog="`leandit config doc KEY` says whether a setting may change.",
    )
    resume.add_argument("folder", metavar="RUN", help="the run's folder")
    resume.add_argument("overrides", nargs="*", metavar="a.b.c=value", help="what changes, as in train.steps=200")
    resume.set_defaults(run=_command("resume"), only_prints=False)


def _add_sample(commands: Commands) -> None:
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
    _add_machine(sample)
    sample.add_argument("--compile", action="store_true", help="compile the network first: faster for many pictures")
    sample.add_argument("--npz", action="store_true", help="also write samples.npz with all pictures and labels")
    sample.set_defaults(run=_command("sample"), only_prints=False)


def _add_evaluate(commands: Commands) -> None:
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
    _add_machine(evaluate)
    evaluate.add_argument("--batch-size", type=int, default=64, help="pictures at a time (default: %(default)s)")
    evaluate.add_argument("--out", help="folder for pictures and result; default: evaluation in the run's folder")
    evaluate.add_argument(
        "--weights-from", action="append", default=[], metavar="NAME=PATH", help="as in inception=weights.pth"
    )
    evaluate.add_argument("--download", action="store_true", help="download published weights that have no path")
    evaluate.add_argument("--compare", nargs=2, metavar="RESULT", help="compare two results instead of measuring")
    evaluate.add_argument("--anyway", action="store_true", help="compare results that are not comparable")
    evaluate.set_defaults(run=_command("evaluate"), only_prints=False)


def _add_probe(commands: Commands) -> None:
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
    _add_machine(probe)
    probe.add_argument("--out", help="folder for the report; default: probe in the run's folder")
    probe.set_defaults(run=_command("probe"), only_prints=False)


def _add_serve(commands: Commands) -> None:
    serve = commands.add_parser("serve", help="draw on a web page", description="Serve a page that draws from runs.")
    serve.add_argument("folders", nargs="+", metavar="RUN", help="runs to choose from")
    serve.add_argument("--port", type=int, default=7860, help="0 chooses a free port (default: %(default)s)")
    serve.add_argument("--host", default="127.0.0.1", help="0.0.0.0 is all addresses (default: %(default)s)")
    serve.add_argument("--queue", type=int, default=8, help="most requests that wait (default: %(default)s)")
    _add_machine(serve)
    serve.set_defaults(run=_command("serve"), only_prints=False)


def _add_import(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=argparse.SUPPRESS,
        metavar="MODULE",
        help="a module, or a .py file, that registers kinds of your own; may be repeated",
    )


def _add_configuration(command: argparse.ArgumentParser) -> None:
    command.add_argument("preset", help="a preset such as quickstart, or a .json, .toml or .yaml file")
    command.add_argument("overrides", nargs="*", metavar="a.b.c=value", help="change the config, as in train.steps=100")


def _add_machine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    command.add_argument("--precision", default="fp32", help="of the network: fp32 or bf16 (default: %(default)s)")


def _add_runs(commands: Commands) -> None:
    runs = commands.add_parser(
        "runs",
        help="list runs with their steps and losses",
        description="List the runs in folders, newest first.",
    )
    runs.add_argument("folders", nargs="*", metavar="FOLDER", help="runs, or folders of runs; default: runs")
    runs.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    runs.set_defaults(run=_command("runs"), only_prints=True)


def _add_compare(commands: Commands) -> None:
    compare = commands.add_parser(
        "compare",
        help="compare the settings and losses of runs",
        description="Compare runs: the settings in which they differ, and their losses on one page.",
    )
    compare.add_argument("folders", nargs="+", metavar="RUN", help="runs, or folders of runs")
    compare.add_argument("--out", help="folder for the page; default: comparison, comparison-2, ...")
    compare.set_defaults(run=_command("compare"), only_prints=True)


def _add_presets(commands: Commands) -> None:
    presets = commands.add_parser("presets", help="list what can be trained", description="List presets.")
    presets.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    presets.set_defaults(run=_command("presets"), only_prints=True)


def _add_models(commands: Commands) -> None:
    models = commands.add_parser("models", help="list named models", description="List named models and their cost.")
    models.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    models.set_defaults(run=_command("models"), only_prints=True)


def _add_config(commands: Commands) -> None:
    config = commands.add_parser(
        "config",
        help="explain settings",
        description="Explain the settings of a run: `leandit config` lists the tables, `leandit config train.steps` is "
        "short for `leandit config doc train.steps`.",
    )
    parts = config.add_subparsers(title="what to print", metavar="WHAT", dest="what")
    parts.add_parser(
        "schema", help="JSON schema of .toml, .json and .yaml files, for editors", description="Print the schema."
    )
    show = parts.add_parser(
        "show",
        help="a complete configuration with comments, as a .toml file",
        description="Print a complete configuration.",
    )
    _add_configuration(show)
    show.add_argument("--json", action="store_true", help="print JSON, without comments")
    doc = parts.add_parser(
        "doc", help="the meaning of a key", description="Print the meaning, type and default of a key."
    )
    doc.add_argument("key", nargs="?", help="such as train.accumulation, or a table of keys such as model.moe")
    for part in parts.choices.values():
        _add_import(part)
    config.set_defaults(run=_command("config"), only_prints=True)


def _add_completion(commands: Commands) -> None:
    completion = commands.add_parser(
        "completion",
        help="complete words in your shell",
        description="Print the lines that complete commands, options, presets, settings and runs in a shell.",
        epilog='bash: add eval "$(leandit completion bash)" to ~/.bashrc; zsh: eval "$(leandit completion zsh)" to '
        "~/.zshrc, after compinit; fish: leandit completion fish > ~/.config/fish/completions/leandit.fish",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    completion.set_defaults(run=_command("completion"), only_prints=True, loads_torch=False)


def _command(module: str) -> Callable[[argparse.Namespace], int]:
    """Return the function that imports a command's module and runs it."""

    def run(options: argparse.Namespace) -> int:
        return int(import_module(f"leandit.cli.{module}").run(options))

    return run
