"""Maps the keys of a checkpoint to a model's weights and records what became of each."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

NAMED = 20  # keys that an error names
# In the order of the summary; the last two are errors without --not_strict.
FATES = ("taken", "renamed", "split", "resized", "copied", "dropped", "fresh", "unknown", "missing")


@dataclass(frozen=True)
class Step:
    """How one key is converted.

    Args:
        targets: The weight's name in the model; the rows are split equally among several names, and dropped for none.
        note: Why it is dropped or changed.
        change: Function to apply to the value.
    """

    targets: tuple[str, ...] = ()
    note: str = ""
    change: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table; weights without a key have no source, and dropped keys no target."""

    fate: str
    source: str
    target: str
    note: str = ""


class KeyTable:
    """Converts a checkpoint key by key.

    Args:
        source: The checkpoint's tensors.
        layout: Returns how to convert a key, or `None` for an unknown one.

    Attributes:
        tensors: The model's weights by name.
        rows: What became of each key, and where each weight came from.

    Raises:
        ValueError: If rows cannot be split equally, or two keys map to the same weight.
    """

    def __init__(self, source: Mapping[str, Tensor], layout: Callable[[str], Step | None]) -> None:
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

    def load_into(self, model: PreTrainedModel, fresh: Callable[[str], str | None], strict: bool) -> None:
        """Loads the converted weights into a model; weights without a key keep their initialization.

        Args:
            model: The model.
            fresh: See [`fit`].
            strict: Whether unknown keys and missing weights are errors.

        Raises:
            ValueError: See [`fit`] and, if strict, [`check`].
        """
        tied = set(model.all_tied_weights_keys)
        self.fit({name: value for name, value in model.state_dict().items() if name not in tied}, fresh)
        if strict:
            self.check()
        model.load_state_dict(self.tensors, strict=False)
        model.tie_weights()

    def fit(self, model: Mapping[str, Tensor], fresh: Callable[[str], str | None]) -> None:
        """Compares with a model's weights; those without a key are recorded as fresh or missing.

        Args:
            model: The model's weights by name, tied ones once.
            fresh: Returns why a weight is randomly initialized, or `None` for one that the checkpoint should have.

        Raises:
            ValueError: If a weight has another shape than the model's, or is not in the model.
        """
        for row in self.rows:
            if not row.target:
                continue
            if row.target not in model:
                raise ValueError(f"{row.source} would be {row.target}, which this model does not have.")
            found, expected = tuple(self.tensors[row.target].shape), tuple(model[row.target].shape)
            if found != expected:
                raise ValueError(f"{row.source} gives {row.target} the shape {found}; the model needs {expected}.")
        for name in model:
            if name not in self.tensors:
                reason = fresh(name)
                fate, note = ("missing", "not in the checkpoint") if reason is None else ("fresh", reason)
                self.rows.append(Row(fate, "", name, note))

    def copied(self, names: set[str], note: str) -> None:
        """Records that weights without a key were copied from others of the model."""
        self.rows = [Row("copied", "", r.target, note) if not r.source and r.target in names else r for r in self.rows]

    def of(self, fate: str) -> list[Row]:
        """Returns the rows with a fate."""
        return [row for row in self.rows if row.fate == fate]

    def check(self) -> None:
        """Checks that there are no unknown keys and no missing weights.

        Raises:
            ValueError: If there are; the message names them.
        """
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
            raise ValueError(f"{'; '.join(problems)}. --not_strict continues without them.")

    def summary(self) -> str:
        """Returns how many keys and weights have which fate."""
        counts = Counter(row.fate for row in self.rows)
        return ", ".join(f"{counts[fate]} {fate}" for fate in FATES if counts[fate])

    def __str__(self) -> str:
        width = max((len(row.source) for row in self.rows), default=0)
        lines = [
            f"{row.fate:<8} {row.source or '-':<{width}}  {row.target or '-'}{f'  ({row.note})' if row.note else ''}"
            for row in self.rows
        ]
        return "\n".join([*lines, self.summary()])
