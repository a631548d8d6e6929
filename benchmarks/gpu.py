"""Everything that only a GPU can show, in one report: tests, equalities, waits, speed.

    python benchmarks/gpu.py [--out FILE] [--only SECTION ...]     (make gpu)

Sections that time something run alone, one after the other; before them tests and compilations run side by side. Each
section is a process of its own with a time limit, so that one that fails or hangs costs only itself. On a machine
without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import moe_layer
import selection
import whole_model
from contest import compete, processor, ratio, setting, table, today
from leandit.models import compile_layers
from leandit.models.cost import forward_flops
from leandit.moe import MoEConfig
from leandit.ops import expert_ffn
from leandit.presets.models import model_config

ROOT = Path(__file__).resolve().parents[1]
# What an H100 or H200 is sold with, in bf16.
DATASHEET = 989e12
TOKENS, DIM, K, EXPERTS = 65_536, 1152, 4, 32


def versions() -> str:
    """Return the machine, and what it reaches at best: large products in bf16 and large copies."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    source, target = (torch.randn(2**29, device="cuda") for _ in range(2))
    timings = compete({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, 20, warmup=5)
    flops = 2 * 8192**3 / timings["product"].median
    copied = 2 * 4 * 2**29 / timings["copy"].median
    return f"{setting()}\n\nProducts of 8192 in bf16: {flops / 1e12:.0f} TFLOPs. Copies: {copied / 1e12:.2f} TB/s."


def tests() -> str:
    """Run the tests of kernels and of the trainer on the GPU."""
    paths = [f"tests/ops/test_{name}.py" for name in ("radix_topk", "pooled_topk", "triton_expert_ffn", "expert_ffn")]
    command = ["-m", "pytest", "-n", "9", "-rf", "--tb=short", "-p", "no:cacheprovider", *paths]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    return f"`python {' '.join(command)}`\n\n```\n{done.stdout[-6000:]}\n{done.stderr[-1500:]}\n```"


def warm(tile: int) -> str:
    """Compile the expert kernels of the timed size with one tile, so that tuning finds them on the disk."""
    from leandit.ops.expert_ffn import kernels

    for kernel, tiles in (
        (kernels.rows_product, kernels._row_tiles()),
        (kernels.weight_gradient, kernels._weight_tiles()),
    ):
        kernel.configs = [tiles[tile]]
        kernel.cache_results = False
    _experts(torch.bfloat16, "triton")(True)
    _experts(torch.bfloat16, "triton")(False)
    return ""


def parity() -> str:
    """Compare predictions, masks and gradients of small models on the GPU with those on the CPU, in fp32."""
    from leandit.models import Conditioning, DiTAirConfig, DiTConfig, MMDiTConfig, PixArtConfig

    strategies = ("token_choice", "expert_choice", "bl_choice", "be_choice", "le_choice", "expert_race")
    cells: list[tuple[Any, MoEConfig]] = [(DiTConfig, MoEConfig(k=2, num_experts=4, strategy=s)) for s in strategies]
    race = MoEConfig(k=2, num_experts=4)
    cells += [(kind, race) for kind in (PixArtConfig, MMDiTConfig, DiTAirConfig)]
    rows = []
    for kind, moe in cells:
        text = {"num_classes": 0, "text_dim": 64, "pooled_dim": 64} if kind.conditions_on_text else {"num_classes": 4}
        sizes = {"dim": 64, "depth": 2, "heads": 2, "input_size": 16, "channels": 4}
        settings = kind(**sizes, **text, moe=moe)
        torch.manual_seed(0)
        model = settings.build()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.05)
        x, t = torch.randn(4, 4, 16, 16), torch.rand(4)
        cond = Conditioning(torch.arange(4))
        if kind.conditions_on_text:
            cond = Conditioning(text=torch.randn(4, 7, 64), pooled=torch.randn(4, 64))
        found = []
        for where in ("cpu", "cuda"):
            model = model.to(where)
            model.zero_grad()
            output = model(x.to(where), t.to(where), cond.map(lambda value, where=where: value.to(where)))
            output.prediction.square().mean().backward()
            gradients = torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])
            masks = torch.stack([router.mask.cpu() for router in output.routers])
            found.append((output.prediction.detach().cpu(), gradients, masks))
        (y, g, m), (y2, g2, m2) = found
        error, slope = ((a - b).norm() / a.norm() for a, b in ((y, y2), (g, g2)))
        rows.append([kind.__name__, moe.strategy, f"{error:.1e}", f"{slope:.1e}", int((m != m2).sum())])
    head = ("backbone", "strategy", "prediction, relative", "gradients, relative", "pairs that differ")
    return table(head, rows)


def resume() -> str:
    """Train, and train with a stop halfway, and compare the weights."""
    import safetensors.torch

    lines = []
    fields = ["train.device=cuda", "train.checkpoint_every=15", "train.keep=9"]
    for precision in ("fp32", "bf16"):
        with tempfile.TemporaryDirectory() as folder:
            fields_ = [*fields, f"train.precision={precision}"]
            command = [sys.executable, "-m", "leandit", "train", "quickstart", *fields_]

            def train(out: Path, steps: int, *more: str, command: list[str] = command) -> None:
                whole = [*command, f"train.steps={steps}", "--out", str(out), *more]
                done = subprocess.run(whole, capture_output=True, text=True, cwd=ROOT)
                if done.returncode:
                    raise RuntimeError(done.stdout[-1500:] + done.stderr[-3000:])

            one, other = Path(folder) / "one", Path(folder) / "other"
            started = time.perf_counter()
            train(one, 30)
            seconds = time.perf_counter() - started
            train(other, 30)
            files = [path / "checkpoints/step-00000030/model.safetensors" for path in (one, other)]
            again = _difference(*map(safetensors.torch.load_file, files))
            for path in (other / "checkpoints/step-00000030",):
                subprocess.run(["rm", "-r", str(path)], check=True)
            train(other, 30, "--resume")
            resumed = _difference(*map(safetensors.torch.load_file, files))
            lines.append([precision, f"{seconds:.0f}", again, resumed])
    return table(("precision", "seconds of 30 steps with start", "the same run again", "resumed at step 15"), lines)


def _difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    if all(torch.equal(value, other[name]) for name, value in one.items()):
        return "equal to the bit"
    largest = max((value - other[name]).abs().max().item() for name, value in one.items() if value.numel())
    return f"differs by up to {largest:.1e}"


def waits() -> str:
    """Count what makes the host wait in a training step, by place, with 2 and 12 layers."""
    from leandit.data import build_source
    from leandit.presets import run_config
    from leandit.run import RunFolder
    from leandit.run.resolve import resolve
    from leandit.training import Trainer

    rows = []
    for depth in (2, 12):
        config = run_config("quickstart", [f"model.depth={depth}", "train.device=cuda", "train.accumulation=2"])
        source = build_source(config.data.source)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(resolve(config, source, None), source, RunFolder(Path(folder)))
            batches = trainer.loader.batches(0)
            for _ in range(3):
                trainer._train_step(next(batches))
            batch = next(batches)
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("warn")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                trainer._train_step(batch)
            torch.cuda.set_sync_debug_mode("default")
        places: collections.Counter[str] = collections.Counter()
        for warning in caught:
            if "synchronizing" in str(warning.message):
                places[f"{Path(warning.filename).name}:{warning.lineno}"] += 1
        listed = ", ".join(f"{place} x{count}" for place, count in places.most_common())
        rows.append([depth, sum(places.values()), listed])
    return table(("layers", "waits in a step of 2 micro-batches", "places"), rows)


def _experts(dtype: torch.dtype, impl: str, autocast: bool = False) -> Callable[[bool], None]:
    hidden = 4 * DIM // K
    shapes = ((EXPERTS, DIM, hidden), (EXPERTS, hidden), (EXPERTS, hidden, DIM), (EXPERTS, DIM))
    kept = torch.float32 if autocast else dtype
    weights = [(torch.randn(shape, device="cuda") * 0.02).to(kept).requires_grad_() for shape in shapes]
    scores = torch.randn(TOKENS, EXPERTS, device="cuda")
    mask = scores >= scores.flatten().topk(TOKENS * K).values[-1]
    scores.requires_grad_()
    x = torch.randn(TOKENS, DIM, device="cuda", dtype=dtype).requires_grad_()
    g = torch.randn(TOKENS, DIM, device="cuda", dtype=dtype)

    def run(backward: bool) -> None:
        with torch.set_grad_enabled(backward), torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            y = expert_ffn(x, scores, mask, *weights, num_pairs=TOKENS * K, impl=impl)  # type: ignore[arg-type]
        if backward:
            torch.autograd.grad(y, (x, scores, *weights), g)

    return run


def _layer(layer: nn.Module, dtype: torch.dtype, autocast: bool = False) -> Callable[[bool], None]:
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.02)
    layer = layer.to("cuda", torch.float32 if autocast else dtype).train()
    x = torch.randn(TOKENS // 256, 256, DIM, device="cuda", dtype=dtype).requires_grad_()
    g = torch.randn_like(x)
    weights = list(layer.parameters())

    def run(backward: bool) -> None:
        with torch.set_grad_enabled(backward), torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            y = layer(x)
        if backward:
            y = y[0] if isinstance(y, tuple) else y
            torch.autograd.grad(y, (x, *weights), g.to(y.dtype), allow_unused=True)

    return run


def layers() -> str:
    """Time the MoE layer over a dense one at the width of XL and 65,536 tokens."""
    rows = []
    bf16 = torch.bfloat16
    contestants: dict[str, Callable[[], Callable[[bool], None]]] = {
        "dense": lambda: _layer(moe_layer.dense(DIM), bf16),
        "dense, torch": lambda: _layer(moe_layer.torch_dense(DIM), bf16),
        "experts, triton": lambda: _experts(bf16, "triton"),
        "experts, grouped_mm": lambda: _experts(bf16, "grouped_mm"),
        "experts, triton, fp32 weights under autocast": lambda: _experts(bf16, "triton", autocast=True),
        "dense, fp32 weights under autocast": lambda: _layer(moe_layer.dense(DIM), bf16, autocast=True),
        "ours, routed": lambda: _layer(moe_layer.ours(DIM, K, EXPERTS), bf16),
    }
    for name, layer in moe_layer.peers(DIM, K, EXPERTS).items():
        if name != "Mixtral eager":
            contestants[name] = partial(_layer, layer, bf16) if name != "NucleusMoE" else partial(_nucleus, layer)
    built: dict[str, Callable[[bool], None]] = {}
    for name, make in contestants.items():
        try:
            run = make()
            for backward in (False, True):
                run(backward)
            torch.cuda.synchronize()
            built[name] = run
        except Exception as error:  # a peer that cannot run at this size is a line of the report
            rows.append([name, f"{type(error).__name__}: {str(error)[:160]}", *[""] * 5])
            torch.cuda.empty_cache()
    times = {}
    for backward in (False, True):
        timings = compete({name: partial(run, backward) for name, run in built.items()}, 9, warmup=3)
        for name, timing in timings.items():
            times.setdefault(name, []).extend(
                [f"{1e3 * timing.median:.2f}", f"{timing.spread:.0%}", f"{ratio(timing, timings['dense']):.2f}"]
            )
    rows = [[name, *cells] for name, cells in times.items()] + rows
    tflop = 3 * 2 * TOKENS * DIM * 4 * DIM * 2 / 1e12
    head = ("layer", *2 * ("ms", "spread", "over dense"))
    legend = (
        f"d = {DIM}, {K}-in-{EXPERTS}, {TOKENS:,} tokens, bf16; forward, then forward and backward ({tflop:.2f} TFLOP)."
    )
    return f"{legend}\n\n{table(head, rows)}"


def _nucleus(layer: nn.Module) -> Callable[[bool], None]:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, x)

    return _layer(Twice(), torch.bfloat16)


def choice() -> str:
    """Time the selection."""
    return selection.report(9)


def steps(which: str, compiled: bool = False, batch: int = 32) -> str:
    """Time a training and a sampling step of a named model, and profile a training step."""
    whole_model.BATCH = batch
    torch.backends.cudnn.benchmark = True
    if which == "diffusers":
        import diffusers

        sizes = {"num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "num_layers": 28}
        model = diffusers.DiTTransformer2DModel(**sizes, sample_size=32, patch_size=2, out_channels=4)
        model = whole_model.randomised(model)
        labels = torch.arange(batch, device="cuda")
        flops = forward_flops(model_config("DiT-XL/2"))

        def call(x: Tensor, t: Tensor) -> Tensor:
            return model(x, timestep=(1000 * t).long(), class_labels=labels).sample
    else:
        settings = model_config(which).complete(input_size=32, channels=4, num_classes=1000)
        flops = forward_flops(settings)
        torch.set_default_device("cuda")
        with torch.autocast("cuda", torch.bfloat16):
            model, call = whole_model.our_call(settings)
        torch.set_default_device(None)
        if compiled:
            compile_layers(model)
    train, sample = whole_model.runs(model, call, bf16=True)
    rows = []
    for name, run, passes in (("training", train, 3), ("sampling", sample, 1)):
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        first = time.perf_counter() - started
        timing = compete({"step": run}, 7, warmup=3)["step"]
        used = passes * flops * batch / timing.median / DATASHEET
        peak = torch.cuda.max_memory_allocated() / 2**30
        rows.append(
            [name, f"{1e3 * timing.median:.1f}", f"{timing.spread:.0%}", f"{used:.1%}", f"{peak:.1f}", f"{first:.0f}"]
        )
    head = ("step", "ms", "spread", f"MFU of {DATASHEET / 1e12:.0f} TFLOPs", "peak, GiB", "first, s")
    legend = f"Batch {batch}, 256 tokens, bf16 autocast over fp32 weights, AdamW."
    return f"{legend}\n\n{table(head, rows)}\n\n{_profile(train)}"


def _profile(run: Callable[[], None]) -> str:
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as profile:
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        wall = time.perf_counter() - started
    kernels = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    total: collections.Counter[str] = collections.Counter()
    number: collections.Counter[str] = collections.Counter()
    for event in kernels:
        plain = event.name.removeprefix("void ").replace("(anonymous namespace)::", "").replace("at::native::", "")
        name = f"{re.sub(r'[<(].*', '', plain)[:50]} {_inner(plain)}".strip()
        total[name] += event.self_device_time_total
        number[name] += 1
    busy = max(1.0, sum(total.values()))
    rows = [[name, number[name], f"{us / 1e3:.2f}", f"{us / busy:.1%}"] for name, us in total.most_common(24)]
    calls = collections.Counter(e.name for e in profile.events() if "ynchronize" in e.name)
    text = f"Profiled: {1e3 * wall:.0f} ms, kernels {busy / 1e3:.0f} ms in {len(kernels)} launches; {dict(calls)}."
    return f"{text}\n\n{table(('kernel', 'launches', 'ms', 'share'), rows)}"


def _inner(name: str) -> str:
    """Return what a kernel of torch computes, which only its template arguments say."""
    words = re.findall(r"\w*(?:Functor|functor|copy_kernel|scan|index|scatter|gather|sort)\w*", name)
    return next((f"({w})" for w in words if not name.startswith(w) and w not in ("BinaryFunctor", "UnaryFunctor")), "")


def drawing() -> str:
    """Draw 64 pictures by the quickstart's model, in fp32, in bf16 and compiled, from the command line."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "leandit"]
        fields = ["train.device=cuda", "train.steps=60"]
        done = subprocess.run(
            [*command, "train", "quickstart", *fields, "--out", str(run)], capture_output=True, text=True
        )
        rows.append(["train", done.returncode, done.stdout[-300:].replace("\n", " / "), done.stderr[-300:]])
        for more in ([], ["--precision", "bf16"], ["--compile"]):
            whole = [*command, "sample", str(run), "--out", f"{folder}/{len(rows)}", *more]
            started = time.perf_counter()
            done = subprocess.run(whole, capture_output=True, text=True)
            last = (done.stdout[-200:] + done.stderr[-600:]).replace("\n", " / ")
            rows.append([" ".join(more) or "default", done.returncode, f"{time.perf_counter() - started:.0f} s", last])
    return table(("command", "exit", "seconds", "last words"), rows)


SECTIONS: dict[str, tuple[Callable[[], str], int]] = {
    "versions": (versions, 60),
    "tests": (tests, 300),
    **{f"warm{tile}": (partial(warm, tile), 120) for tile in range(5)},
    "parity": (parity, 170),
    "resume": (resume, 400),
    "waits": (waits, 120),
    "drawing": (drawing, 170),
    "selection": (choice, 60),
    "layers": (layers, 90),
    "DiT-XL/2": (partial(steps, "DiT-XL/2"), 60),
    "diffusers": (partial(steps, "diffusers"), 60),
    "RaceDiT-XL/2-4in32": (partial(steps, "RaceDiT-XL/2-4in32"), 100),
    "DiT-XL/2 compiled by layer": (partial(steps, "DiT-XL/2", compiled=True), 120),
    "RaceDiT-XL/2-4in32 compiled by layer": (partial(steps, "RaceDiT-XL/2-4in32", compiled=True), 150),
    "DiT-XL/2 compiled, batch 128": (partial(steps, "DiT-XL/2", compiled=True, batch=128), 120),
    "RaceDiT-XL/2-4in32 compiled, batch 128": (partial(steps, "RaceDiT-XL/2-4in32", compiled=True, batch=128), 150),
}
# What is not timed runs side by side first.
TOGETHER = ("tests", *(f"warm{tile}" for tile in range(5)), "parity", "resume", "waits", "drawing")


def main() -> None:
    """Run the sections and write the report after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--section", choices=list(SECTIONS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.section:
        print(SECTIONS[options.section][0]())
        return
    if not torch.cuda.is_available():
        sys.exit("torch finds no GPU here, so nothing was measured. For a CPU there are `make test` and `make bench`.")
    name = re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-")
    out = options.out or ROOT / "benchmarks/results" / f"{name}_{today()}.md"
    done: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        together = {s: _start(s, Path(folder)) for s in TOGETHER if s in options.only}
        for section, running in together.items():
            done[section] = _finish(section, running, Path(folder))
            _write(out, done, options.only)
        for section in options.only:
            if section not in together:
                done[section] = _finish(section, _start(section, Path(folder)), Path(folder))
                _write(out, done, options.only)
    print(f"results in {out}")


def _start(section: str, folder: Path) -> tuple[subprocess.Popen[str], float]:
    log = (folder / section.replace("/", "-")).open("w")
    command = [sys.executable, __file__, "--section", section]
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment)
    return process, time.perf_counter()


def _finish(section: str, running: tuple[subprocess.Popen[str], float], folder: Path) -> str:
    process, started = running
    limit = SECTIONS[section][1]
    try:
        process.wait(max(1.0, limit - (time.perf_counter() - started)))
        note = "" if process.returncode == 0 else f"\n\n(exit {process.returncode})"
    except subprocess.TimeoutExpired:
        process.kill()
        note = f"\n\n(ended at its limit of {limit} s)"
    text = (folder / section.replace("/", "-")).read_text()
    if note:
        text = f"```\n{text[-5000:]}\n```"
    return f"{text.strip()}{note}\n\n({time.perf_counter() - started:.0f} s)"


def _write(out: Path, done: dict[str, str], order: list[str]) -> None:
    parts = [f"## {section}\n\n{done[section]}\n" for section in order if done.get(section)]
    command = "python benchmarks/gpu.py"
    out.write_text(f"# On a GPU\n\n    {command}\n\n" + "\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        sys.exit(1)
