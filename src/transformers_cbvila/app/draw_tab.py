"""The tab in which pictures are drawn from captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..drawing.from_captions import draw_captions
from ..drawing.reranking import best_matching
from ..drawing.steps import DrawnStep, draw_in_steps
from ..retrieval.encoding import pixel_values_of
from ..retrieval.retriever import CBViLARetriever
from . import html
from .components import EVENT, explained, live_html, saying_what_is_wrong, still_html
from .models import Loaded

LEAD = (
    "Write a caption: the model fills a grid of patches with visual words, the surest first, and paints them. "
    "Then mark patches, and have them redrawn for another caption."
)
EXAMPLES = (
    "a blue circle left of a red square",
    "a big yellow star above a small green triangle",
    "a black cross right of a green ring",
)
MARK = "Mark patches: press them, or draw over them. The others keep their visual words."
REDRAWN = "a big yellow star"
_UNSETTLED = 0.65  # how much of a patch that is not settled yet is grey
_MARKED = """(...inputs) => {
  const marks = [...document.querySelectorAll('#draw-marks .mark[aria-pressed=true]')];
  return [JSON.stringify(marks.map((mark) => Number(mark.dataset.patch))), ...inputs.slice(1)];
}"""


class DrawTab(NamedTuple):
    """What other tabs are linked with.

    Args:
        state: State with the picture of which a part can be redrawn.
        caption: The caption.
        brought: What shows a picture that was brought here, with its inputs and outputs.
        start: What fills the tab when the page is opened, likewise.
        links: Where buttons that take the picture elsewhere go.
    """

    state: Any
    caption: Any
    brought: tuple[Any, list[Any], list[Any]]
    start: tuple[Any, list[Any], list[Any]]
    links: Any


class Drawing:
    """Draws pictures.

    Args:
        loaded: A pretrained model that draws.
        reranker: What says which of several drawings fits the caption best; without, one is drawn.
    """

    def __init__(self, loaded: Loaded, reranker: CBViLARetriever | None = None) -> None:
        self.loaded, self.reranker = loaded, reranker
        vision = loaded.model.config.vision_config
        self.side = vision.image_size // vision.patch_size

    def seen(self, image: Image.Image) -> Image.Image:
        """Returns a picture as the model sees it."""
        pixel_values = pixel_values_of(self.loaded.model, self.loaded.processor, [image])
        (seen,) = self.loaded.processor.postprocess(pixel_values)
        return seen

    def draw(self, caption: str, steps: int, seed: int, guidance: float, candidates: int = 1) -> list[DrawnStep]:
        """Draws a picture, the one of several candidates that fits the caption best.

        Raises:
            ValueError: If the caption is empty.
        """
        return self._draw(caption, steps, seed, guidance, int(candidates))

    def redraw(
        self, caption: str, image: Image.Image | None, part: Sequence[int], steps: int, seed: int, guidance: float
    ) -> list[DrawnStep]:
        """Redraws patches of a picture.

        Raises:
            ValueError: If the caption is empty, there is no picture, or no patch is marked.
        """
        if image is None:
            raise ValueError("Draw a picture first, or bring one from another tab.")
        if not part:
            raise ValueError("Mark the patches to redraw: press them, or draw over them.")
        return self._draw(caption, steps, seed, guidance, image=image, part=part)

    def _draw(
        self, caption: str, steps: int, seed: int, guidance: float, candidates: int = 1, **part: Any
    ) -> list[DrawnStep]:
        if not caption.strip():
            raise ValueError("Write what to draw, or press one of the examples.")
        how: dict[str, Any] = {"num_steps": int(steps), "guidance_scale": guidance, "seed": int(seed)}
        sample = self._best(caption, candidates, how)
        return draw_in_steps(self.loaded.model, self.loaded.processor, caption, sample=sample, **part, **how)

    def _best(self, caption: str, candidates: int, how: dict[str, Any]) -> int:
        """Returns the number of the candidate that fits the caption best, which is then drawn again, step by step."""
        if self.reranker is None or candidates == 1:
            return 0
        drawn = draw_captions(self.loaded.model, self.loaded.processor, [caption], candidates, progress=False, **how)
        matcher = self.reranker.model, self.reranker.processor
        ((best,),) = best_matching(*matcher, [caption], drawn, progress=False)
        return best


def film_html(steps: Sequence[DrawnStep], caption: str) -> str:
    """Returns the picture after each step, of which one is shown, and all of them as a strip to choose from."""
    last = len(steps) - 1
    frames, strip = [], []
    for number, step in enumerate(steps):
        settled = f"{int((~step.hidden).sum())} of {step.hidden.size} patches settled"
        hidden = "" if number == last else " hidden"
        shown = veiled(step)
        frames.append(
            f'<figure class="frame"{hidden}>{html.picture(shown, f"“{caption}” after step {number + 1}")}'
            f"<figcaption>step {number + 1} of {len(steps)}: {settled}</figcaption></figure>"
        )
        strip.append(
            f'<li><button type="button" data-step="{number}" aria-pressed="{html.flag(number == last)}"'
            f' aria-label="Step {number + 1}: {settled}">{html.picture(shown, "")}</button></li>'
        )
    return (
        f'{html.heading(f"“{caption}”")}<div class="film">{"".join(frames)}</div>'
        f'<ul class="strip" aria-label="Steps">{"".join(strip)}</ul>'
        '<button type="button" class="chip again">Watch again</button>'
    )


def veiled(step: DrawnStep) -> Image.Image:
    """Returns the picture after a step, with a grey veil over patches that are not settled yet."""
    picture = np.asarray(step.picture, dtype=np.float64)
    rows, columns = step.hidden.shape
    veil = step.hidden.repeat(picture.shape[0] // rows, axis=0).repeat(picture.shape[1] // columns, axis=1)
    covered = picture * (1 - _UNSETTLED) + 160 * _UNSETTLED
    return Image.fromarray(np.where(veil[..., None], covered, picture).round().astype(np.uint8))


def marks_html(image: Image.Image, side: int) -> str:
    """Returns a picture of side × side patches that can be marked; the left half of them is."""
    labels = [f"Patch in row {place // side + 1}, column {place % side + 1}" for place in range(side * side)]
    marked = [place for place in range(side * side) if place % side < side // 2]
    return html.patches(np.asarray(image), (side, side), "mark", labels, pressed=marked)


def _sliders(gr: Any, drawing: Drawing) -> list[Any]:
    """Returns new sliders: steps, seed, guidance and candidates, the last one hidden where nothing ranks them."""
    seed = gr.Slider(0, 99, 0, step=1, label="Seed: another one draws another picture")
    most, reranks = min(12, drawing.side**2), drawing.reranker is not None
    steps = gr.Slider(1, most, min(8, most), step=1, label="Steps")
    guidance = gr.Slider(1, 5, 2, step=0.5, label="Guidance: above 1, further from pictures without a caption")
    fits = "Candidates: so many are drawn, and the one that fits its caption best is shown"
    candidates = gr.Slider(1, 32, 16 if reranks else 1, step=1, visible=reranks, label=fits)
    return [steps, seed, guidance, candidates]


def add_draw_tab(gr: Any, drawing: Drawing) -> DrawTab:
    """Adds what is in the tab."""
    explained(gr, LEAD)
    picture = gr.State(None)
    with gr.Row():
        with gr.Column(scale=3):
            caption = gr.Textbox(
                "", label="What shall it draw?", placeholder=EXAMPLES[0], submit_btn="Draw", elem_id="draw-caption"
            )
            with gr.Row(elem_classes="examples"):
                examples = [gr.Button(example, size="sm", min_width=100) for example in EXAMPLES]
            with gr.Accordion("How it draws", open=False):
                *how, candidates = sliders = _sliders(gr, drawing)
            film = live_html(gr, "film.js", "draw-film")
        with gr.Column(scale=2, min_width=280):
            still_html(gr, html.heading("Redraw a part") + html.note(MARK))
            marks = live_html(gr, "marks.js", "draw-marks")
            other = gr.Textbox(label="What shall be there?", value=REDRAWN, elem_id="redraw-caption")
            redraw = gr.Button("Redraw the marked patches", variant="primary", elem_id="redraw")
            with gr.Row(elem_classes="links") as links:
                pass
    marked = gr.Textbox(visible=False)
    shown = [film, marks, picture]
    asked = [caption, *how, candidates]
    unchanged = (gr.skip(), gr.skip())

    def results(drawn: Sequence[DrawnStep], caption: str) -> tuple[Any, ...]:
        last = drawn[-1].picture
        return film_html(drawn, caption.strip()), marks_html(last, drawing.side), last

    @saying_what_is_wrong(*unchanged)
    def draw(caption: str, steps: int, seed: int, guidance: float, candidates: int) -> tuple[Any, ...]:
        return results(drawing.draw(caption, steps, seed, guidance, candidates), caption)

    @saying_what_is_wrong(*unchanged)
    def redrawn(marked: str, caption: str, image: Any, steps: int, seed: int, guidance: float) -> tuple[Any, ...]:
        drawn = drawing.redraw(caption, image, json.loads(marked), steps, seed, guidance)
        return results(drawn, caption)

    def brought(image: Any) -> tuple[Any, ...]:
        if image is None:
            return "", "", None
        seen = drawing.seen(image)
        return (
            html.heading("Your picture") + html.figure(seen, "as the model sees it"),
            marks_html(seen, drawing.side),
            seen,
        )

    gr.on([caption.submit, *(slider.release for slider in sliders)], draw, asked, shown, **EVENT)
    for example in examples:
        example.click(lambda words=example.value: words, None, [caption], **EVENT).then(draw, asked, shown, **EVENT)
    redraw.click(redrawn, [marked, other, picture, *how], shown, js=_MARKED, **EVENT)

    def start() -> tuple[Any, ...]:
        return EXAMPLES[0], *draw(EXAMPLES[0], *(slider.value for slider in sliders))

    return DrawTab(picture, caption, (brought, [picture], shown), (start, [], [caption, *shown]), links)
