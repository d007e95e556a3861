"""Options of quantizers and objectives: strict dataclasses in the file of their class, checked by annotation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from math import inf, isfinite
from typing import Any, ClassVar, Literal, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

from huggingface_hub.dataclasses import strict, type_validator

from .messages_cbvila import listed, shown

Options = TypeVar("Options", bound="CBViLAOptions")


@dataclass_transform(kw_only_default=True)
def options(cls: type[Options]) -> type[Options]:
    """Makes a class a dataclass with keyword-only fields, whose values are checked whenever they are set."""
    return strict(dataclass(kw_only=True)(cls))


@dataclass(kw_only=True)
class CBViLAOptions:
    """Base class of the options of a quantizer or an objective.

    Attributes:
        flat_names: Flat names in configurations of version 0.1, with the option that each became.
        presets: Values that a preset sets, by its name. The preset `"recommended"` is the defaults.
        sources: Options that name a folder or a Hub id; a checkpoint whose options name a folder is not published.
    """

    flat_names: ClassVar[dict[str, str]] = {}
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    sources: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def build(cls: type[Options], values: Mapping[str, Any], where: str) -> Options:
        """Creates options from values; the others keep their defaults.

        Args:
            values: Values by name.
            where: What error messages call the options, such as `"quantizer_config"`.

        Raises:
            ValueError: For an unknown name, or a value whose type is not the annotated one.
        """
        hints = get_type_hints(cls)
        known = [field.name for field in fields(cls)]
        for name, value in values.items():
            if name not in known:
                near = get_close_matches(str(name), known, n=1)
                meant = f"did you mean {near[0]!r}?" if near else f"its options are {listed(known)}."
                raise ValueError(f"{where} has no option {shown(name)}; {meant}")
            try:
                type_validator(name, value, hints[name])
            except TypeError:
                raise ValueError(f"{where}: {name}={shown(value)} is not {_expected(hints[name])}.") from None
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as they are written to config.json."""
        return asdict(self)

    def check(self, where: str) -> None:
        """Raises a ValueError for values of the right type that are out of range."""

    def unused(self) -> dict[str, str]:
        """Returns the options that others leave without effect, whatever their values, with the reason of each.

        They are no error, as saved configurations have them; pretraining names those that were changed.
        """
        return {}


def require_range(where: str, name: str, value: Any, least: float, below: float = inf, above: bool = False) -> None:
    """Raises a ValueError unless `least` <= value < `below` (`least` < value with `above`)."""
    if (value > least if above else value >= least) and value < below:
        return
    limits = [f"above {least:g}" if above else f"at least {least:g}"]
    limits += [f"below {below:g}"] if below < inf else []
    limits += ["finite"] if isinstance(value, float) and not isfinite(value) else []
    raise ValueError(f"{where}: {name}={value} must be {' and '.join(limits)}.")


def _expected(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    return f"of type {getattr(hint, '__name__', str(hint))}" if not get_args(hint) else f"of type {hint}"
