"""Components of Gradio that tabs share. `gr` is the module gradio."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.resources import files
from typing import Any

from .html import note

# Events that use models run one after the other, on whatever tab they are.
EVENT = {"concurrency_id": "models", "concurrency_limit": 1, "api_visibility": "private"}


def asset(name: str) -> str:
    """Returns the text of a style sheet or script of the app."""
    return (files("transformers_cbvila.app") / name).read_text(encoding="utf-8")


def still_html(gr: Any, value: str = "", name: str | None = None) -> Any:
    """Returns HTML with the app's style alone."""
    return gr.HTML(value, apply_default_css=False, elem_id=name)


def live_html(gr: Any, script: str, name: str, value: str = "") -> Any:
    """Returns HTML with a script that brings it to life.

    Args:
        gr: Gradio.
        script: Name of the script.
        name: The component's id in the page.
        value: HTML to begin with.
    """
    return gr.HTML(value, js_on_load=asset(script), apply_default_css=False, elem_id=name)


def explained(gr: Any, text: str) -> Any:
    """Returns the sentence that says what a tab is for."""
    return still_html(gr, f'<p class="lead">{text}</p>')


def picture_input(gr: Any, name: str) -> Any:
    """Returns a picture that can be replaced by one's own."""
    return gr.Image(
        type="pil",
        format="png",
        label="Picture (drop your own here)",
        sources=["upload", "clipboard"],
        height=280,
        buttons=[],
        alt_text="The picture that is looked at",
        elem_id=name,
        elem_classes="picture",
    )


def reading_event(gr: Any, handler: Callable[..., Any]) -> Callable[..., Any]:
    """Makes Gradio pass what happened as the argument `event`, which it knows by its annotation."""
    handler.__annotations__["event"] = gr.EventData
    return handler


def saying_what_is_wrong(*others: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a handler show the message of a ValueError in its first output.

    Args:
        others: What its other outputs are then.
    """

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(handler)
        def handled(*args: Any) -> Any:
            try:
                return handler(*args)
            except ValueError as error:
                problem = note(_sentence(str(error)), "problem")
                return (problem, *others) if others else problem

        return handled

    return decorate


def _sentence(message: str) -> str:
    """Returns a message that begins like a sentence."""
    return message[:1].upper() + message[1:]
