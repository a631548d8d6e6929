"""The page: the controls on the left, the picture and its compute map on the right."""

from __future__ import annotations

import html
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from leandit.app.drawing import Drawing, draw_frames
from leandit.app.plots import expert_load, experts_over_time
from leandit.app.request import (
    BUDGETS,
    FIELDS,
    MAX_PROMPT,
    MAX_SEED,
    check_fields,
    find_run,
    max_guidance,
    max_steps,
    read_request,
)
from leandit.app.runs import ServedRun
from leandit.app.viewer import drawing_view, empty_view, frame_view
from leandit.errors import LeanDiTError
from leandit.models import count_parameters

if TYPE_CHECKING:
    import gradio as gr

_HEAD = "<div class='ld-head'><h1>Lean<b>DiT</b></h1><p>Draw a picture, and see where the experts worked.</p></div>"
_RANDOM_SEED = "() => Math.floor(Math.random() * 1000000)"
_FAILED = "The picture could not be drawn. The server's log gives the reason."
_EXAMPLES = 6
# Puts an example into the prompt as if the visitor had typed it.
SCRIPT = """
function leanditPrompt(button) {
  const box = document.querySelector("#ld-prompt textarea");
  box.value = button.textContent;
  box.dispatchEvent(new Event("input", { bubbles: true }));
}
"""


def build_page(runs: Mapping[str, ServedRun]) -> gr.Blocks:
    """Return the page for these runs, with the first run selected. It accepts no files and stores nothing."""
    import gradio as gr

    first = next(iter(runs.values()))
    with gr.Blocks(title="LeanDiT", analytics_enabled=False) as page:
        gr.HTML(_HEAD)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=280):
                inputs, about, chips, draw, stop = _controls(runs, first)
            with gr.Column(scale=5, min_width=280):
                viewer = gr.HTML(empty_view(_k(first) is not None), elem_id="ld-view")
                with gr.Row():
                    over_time = gr.Plot(show_label=False, visible=False, elem_id="ld-over-time", min_width=280)
                    load = gr.Plot(show_label=False, visible=False, elem_id="ld-load", min_width=280)
        _wire(runs, inputs, [about, chips], draw, stop, [viewer, over_time, load])
    return page


def _wire(
    runs: Mapping[str, ServedRun], inputs: dict[str, Any], others: list[Any], draw: Any, stop: Any, shown: list[Any]
) -> None:
    """Connect the controls. Draw, Enter and the budget start a drawing; another run changes the controls."""
    import gradio as gr

    # Gradio must not check the values, because its errors for wrong types do not help visitors.
    options: dict[str, Any] = {"preprocess": False, "show_progress": "hidden"}
    drawing = gr.on(
        [draw.click, inputs["prompt"].submit, inputs["budget"].release],
        _drawer(runs),
        [*inputs.values()],
        shown,
        api_name="draw",
        concurrency_limit=len(runs),
        trigger_mode="always_last",
        validator=_validator(runs),
        **options,
    )
    stop.click(None, cancels=[drawing], api_visibility="private")
    # The old run's frames must not come after the new run's controls.
    inputs["run"].change(None, cancels=[drawing], api_visibility="private")
    changed = [*others, *list(inputs.values())[1:], *shown]
    private: dict[str, Any] = {**options, "queue": False, "api_visibility": "private"}
    inputs["run"].change(_chooser(runs), inputs["run"], changed, **private)


def _controls(runs: Mapping[str, ServedRun], first: ServedRun) -> tuple[dict[str, Any], Any, Any, Any, Any]:
    """Lay out the controls. Return the inputs in the order of FIELDS, and the other components."""
    import gradio as gr

    state = _settings(first)
    run = gr.Dropdown([*runs], value=first.name, label="Run", visible=len(runs) > 1, elem_id="ld-run")
    about = gr.HTML(state["about"])
    prompt = gr.Textbox(label="Prompt", lines=2, max_length=MAX_PROMPT, elem_id="ld-prompt", **state["prompt"])
    chips = gr.HTML(**state["chips"])
    label = gr.Dropdown(label="Class", elem_id="ld-class", **state["label"])
    with gr.Row(equal_height=False, elem_classes="ld-seed"):
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120, elem_id="ld-seed")
        another = gr.Button("Random seed", min_width=110, size="md")
    budget = gr.Slider(*BUDGETS, step=0.05, label="Compute budget", elem_id="ld-budget", **state["budget"])
    with gr.Row():
        draw = gr.Button("Draw", variant="primary", min_width=120, elem_id="ld-draw")
        stop = gr.Button("Stop", min_width=80, elem_id="ld-stop")
    with gr.Accordion("Sampler", open=False, elem_id="ld-sampler"):
        steps = gr.Slider(1, step=1, label="Steps", elem_id="ld-steps", **state["steps"])
        guidance = gr.Slider(0, step=0.1, label="Guidance", elem_id="ld-guidance", **state["guidance"])
    another.click(None, None, seed, js=_RANDOM_SEED)
    inputs = dict(zip(FIELDS, (run, prompt, label, seed, steps, guidance, budget), strict=True))
    return inputs, about, chips, draw, stop


def _settings(served: ServedRun) -> dict[str, Any]:
    """Return the arguments of the controls for this run."""
    run, sampling = served.run, served.run.config.sampling
    choices, is_text = served.choices, served.run.text is not None
    prompts = [*sampling.prompts][:_EXAMPLES]
    hint = "1 is the compute of the trained model; a new value draws again"
    without = "the number of this run's experts is fixed" if _k(served) else "a dense model has no experts"
    return {
        "about": _about(served),
        "prompt": {"visible": is_text, "value": prompts[0] if prompts else "", "placeholder": "what to draw"},
        "chips": {"value": _chips(prompts), "visible": is_text and bool(prompts)},
        "label": {"choices": choices, "value": choices[0] if choices else None, "visible": bool(choices)},
        "steps": {"value": sampling.sampler.steps, "maximum": max_steps(run)},
        "guidance": {
            "value": sampling.guidance.scale,
            "maximum": max_guidance(run),
            "visible": is_text or bool(choices),
        },
        "budget": {
            "value": 1.0,
            "interactive": served.has_budget,
            "info": hint if served.has_budget else without,
        },
    }


def _chips(prompts: list[str]) -> str:
    buttons = (
        f'<button type="button" onclick="leanditPrompt(this)">{html.escape(prompt)}</button>' for prompt in prompts
    )
    return f'<div class="ld-chips">{"".join(buttons)}</div>'


def _about(served: ServedRun) -> str:
    """Return a line about the run."""
    run, config = served.run, served.config
    moe = config.moe
    count = count_parameters(config)
    experts = f"{moe.routing_name}, {_k(served):g} of {moe.num_experts} experts" if moe else "dense"
    size = f"{config.size} px, {config.depth} layers, {count.total / 1e6:.1f} M parameters in the blocks"
    return (
        f'<div class="ld-about"><b>{html.escape(served.name)}</b> · {run.config.model.type}, {experts} · '
        f"{size} · step {run.step:,}</div>"
    )


def _k(served: ServedRun) -> int | float | None:
    moe = served.config.moe
    return None if moe is None else moe.experts_per_token(training=False)


def _drawer(runs: Mapping[str, ServedRun]) -> Any:
    import gradio as gr

    # Error messages contain the names of these parameters.
    def draw(
        run: Any, prompt: Any, label: Any, seed: Any, steps: Any, guidance: Any, budget: Any
    ) -> Iterator[tuple[Any, ...]]:
        try:
            yield from _updates(runs, (run, prompt, label, seed, steps, guidance, budget))
        except LeanDiTError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from None
        except Exception:
            traceback.print_exc()
            raise gr.Error(_FAILED, print_exception=False) from None

    return draw


def _updates(runs: Mapping[str, ServedRun], values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the new values of the viewer and the two plots, frame by frame."""
    import gradio as gr

    request = read_request(runs, values)
    k = _k(request.served)
    total = _evaluations(request.settings.sampler)
    for done, item in enumerate(draw_frames(request), start=1):
        if not isinstance(item, Drawing):
            yield frame_view(item, done, total, k), gr.skip(), gr.skip()
            continue
        view = drawing_view(item, k)
        if k is None:
            yield view, gr.skip(), gr.skip()
        else:
            plots = (experts_over_time(item, k), expert_load(item))
            yield view, *(gr.update(value=plot, visible=True) for plot in plots)


def _evaluations(sampler: Any) -> int:
    """Return the number of network evaluations. Heun's samplers use two per step, and one in the last step."""
    return 2 * sampler.steps - 1 if sampler.type in ("heun", "heun_sde") else sampler.steps


def _validator(runs: Mapping[str, ServedRun]) -> Any:
    import gradio as gr

    def check(run: Any, prompt: Any, label: Any, seed: Any, steps: Any, guidance: Any, budget: Any) -> list[Any]:
        problems = check_fields(runs, (run, prompt, label, seed, steps, guidance, budget))
        return [gr.validate(name not in problems, problems.get(name, "")) for name in FIELDS]

    return check


def _chooser(runs: Mapping[str, ServedRun]) -> Any:
    import gradio as gr

    def choose(name: Any) -> list[Any]:
        try:
            served = find_run(runs, name)
        except LeanDiTError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from None
        state = _settings(served)
        controls = [gr.update(**state[field]) for field in ("prompt", "label")]
        rest = [gr.update(), *(gr.update(**state[field]) for field in ("steps", "guidance", "budget"))]
        chips, hidden = gr.update(**state["chips"]), gr.update(value=None, visible=False)
        return [state["about"], chips, *controls, *rest, empty_view(_k(served) is not None), hidden, hidden]

    return choose
