"""The account of a conversion: what became of every key of a checkpoint, and where a model's weights came from."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

NAMED = 20  # as many keys are named in an error
# In the order of the summary; the last two are errors unless the user says otherwise.
FATES = ("taken", "renamed", "split", "resized", "copied", "dropped", "fresh", "unknown", "missing")


@dataclass(frozen=True)
class Step:
    """What a layout says of one key.

    Args:
        targets: The weight's name in the model; several share its rows equally, none leaves it out.
        note: Why, for what is left out or changed.
        change: What the value passes on the way.
    """

    targets: tuple[str, ...] = ()
    note: str = ""
    change: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table; a weight that no key brings has no source, a key that is left out no target."""

    fate: str
    source: str
    target: str
    note: str = ""


class KeyTable:
    """Follows a layout key by key; afterwards `tensors` has the model's weights by name and `rows` the account.

    Args:
        source: The checkpoint's tensors.
        layout: Says of each key what becomes of it, `None` for one that it does not know.

    Raises:
        ValueError: If rows cannot be shared out, or two keys go to the same weight.
    """

    def __init__(self, source: Mapping[str, Tensor], layout: Callable[[str], Step | None]):
        self.tensors: dict[str, Tensor] = {}
        self.rows: list[Row] = []
        for key, value in source.items():
            step = layout(key)
            if step is None:
                self.rows.append(Row("unknown", key, "", "no part of this layout"))
            elif not step.targets:
                self.rows.append(Row("dropped", key, "", step.note))
            else:
                self._take(key, value, step)

    def _take(self, key: str, value: Tensor, step: Step) -> None:
        parts = len(step.targets)
        if parts > 1 and (value.dim() == 0 or value.shape[0] % parts):
            raise ValueError(f"{key} has shape {tuple(value.shape)}: its rows cannot be shared by {parts} weights.")
        fate = "split" if parts > 1 else "taken" if step.targets[0] == key else "renamed"
        if step.change is not None:
            shape, value = value.shape, step.change(value)
            fate = fate if value.shape == shape else "resized"
        for target, part in zip(step.targets, value.chunk(parts) if parts > 1 else [value], strict=True):
            if target in self.tensors:
                raise ValueError(f"Two keys of the checkpoint go to {target}; the second is {key}.")
            self.tensors[target] = part
            self.rows.append(Row(fate, key, target, step.note))

    def fit(self, model: Mapping[str, Tensor], fresh: Callable[[str], str | None]) -> None:
        """Compares with a model's own weights; what no key brings is fresh or missing.

        Args:
            model: The model's weights by name, tied ones once.
            fresh: Why a weight starts anew, `None` for one that the checkpoint should have.

        Raises:
            ValueError: If a weight has another shape than the model's, or is none of the model's.
        """
        for row in self.rows:
            if not row.target:
                continue
            if row.target not in model:
                raise ValueError(f"{row.source} would be {row.target}, which this model does not have.")
            found, expected = tuple(self.tensors[row.target].shape), tuple(model[row.target].shape)
            if found != expected:
                raise ValueError(
                    f"{row.source} gives {row.target} the shape {found}; the model's sizes ask {expected}."
                )
        for name in model:
            if name not in self.tensors:
                reason = fresh(name)
                fate, note = ("missing", "not in the checkpoint") if reason is None else ("fresh", reason)
                self.rows.append(Row(fate, "", name, note))

    def copied(self, names: set[str], note: str) -> None:
        """Notes that weights which no key brings were copied from others of the model."""
        self.rows = [Row("copied", "", r.target, note) if not r.source and r.target in names else r for r in self.rows]

    def of(self, fate: str) -> list[Row]:
        """The rows with a fate."""
        return [row for row in self.rows if row.fate == fate]

    def check(self) -> None:
        """Raises a ValueError that names the keys which nobody knows and the weights which are not there."""
        problems = []
        for fate, keys in (
            ("unknown", [row.source for row in self.of("unknown")]),
            ("missing", [row.target for row in self.of("missing")]),
        ):
            if keys:
                others = f" and {len(keys) - NAMED} others" if len(keys) > NAMED else ""
                named = f"{', '.join(keys[:NAMED])}{others}"
                problems.append(f"{len(keys)} key{'s are' if len(keys) > 1 else ' is'} {fate}: {named}")
        if problems:
            raise ValueError(f"{'; '.join(problems)}. --not_strict goes on without them.")

    def summary(self) -> str:
        """How many keys and weights have which fate."""
        counts = Counter(row.fate for row in self.rows)
        return ", ".join(f"{counts[fate]} {fate}" for fate in FATES if counts[fate])

    def __str__(self) -> str:
        width = max((len(row.source) for row in self.rows), default=0)
        lines = [
            f"{row.fate:<8} {row.source or '-':<{width}}  {row.target or '-'}{f'  ({row.note})' if row.note else ''}"
            for row in self.rows
        ]
        return "\n".join([*lines, self.summary()])
