"""What an image with a hidden object says of a statement.

Of a scene in full view every statement is true or false. Therefore some images of the task entailment have a grey
screen, behind which there is exactly one object, at its centre; nothing says which. A statement is *entailed* if it is
true whatever object is behind the screen, a *contradiction* if it is false whatever is there, and *neutral* if that
depends on the object. Any of the 49 kinds may be there, also one that can be seen elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from .scene import Scene, SceneObject
from .statements import Statement
from .words import KINDS, SIZES

LABELS = ("entailment", "neutral", "contradiction")


def judge(statement: Statement, scene: Scene) -> str:
    """Returns the label of a scene and a statement about it."""
    outcomes = {statement.holds(objects) for objects in _completions(statement, scene)}
    if len(outcomes) > 1:
        return "neutral"
    return "entailment" if outcomes.pop() else "contradiction"


def _completions(statement: Statement, scene: Scene) -> Iterator[tuple[SceneObject, ...]]:
    """Yields the objects with each that may be behind the screen and makes a difference; none is about sizes."""
    if scene.screen is None:
        yield scene.objects
        return
    named = statement.named()
    colors, shapes = {kind.color for kind in named}, {kind.shape for kind in named}
    stranger = next(kind for kind in KINDS if kind.color not in colors and kind.shape not in shapes)
    for kind in (*named, stranger):
        yield (*scene.objects, SceneObject(kind, SIZES[0], scene.screen))
