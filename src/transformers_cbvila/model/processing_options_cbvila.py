"""Options of a processor's call, for texts or images, single or in the groups of transformers."""

from typing import Any

from .messages_cbvila import shown

# Groups of options for texts, images or both; and those of other modalities, which libraries for many models, such as
# sentence-transformers, also pass.
TEXT_GROUP, IMAGE_GROUP, COMMON_GROUP = "text_kwargs", "images_kwargs", "common_kwargs"
OTHER_GROUPS = ("videos_kwargs", "audio_kwargs")
OTHER_INPUTS = ("videos", "audio")
TEXT_OPTIONS = (
    "padding",
    "truncation",
    "max_length",
    "pad_to_multiple_of",
    "add_special_tokens",
    "return_attention_mask",
)
# Options of tokenizers with their only supported value and the reason; None (not given) is always allowed.
_ONE_TEXT = "a text is one string: pass it as text"
_NO_OVERFLOW = "the rest of a truncated text is not returned"
_NOT_RETURNED = "this processor does not return it; ask processor.tokenizer"
FIXED_TEXT_OPTIONS: dict[str, tuple[Any, str]] = {
    "padding_side": ("right", "positions are counted from the left, so that padding is on the right"),
    "return_token_type_ids": (False, "the models take no token types"),
    "text_pair": (None, _ONE_TEXT),
    "text_pair_target": (None, _ONE_TEXT),
    "text_target": (None, "answers are encoded by processor.encode_answers"),
    "is_split_into_words": (False, _ONE_TEXT),
    "stride": (0, _NO_OVERFLOW),
    "return_overflowing_tokens": (False, _NO_OVERFLOW),
    "return_special_tokens_mask": (False, _NOT_RETURNED),
    "return_offsets_mapping": (False, _NOT_RETURNED),
    "return_length": (False, _NOT_RETURNED),
    "return_mm_token_type_ids": (False, _NOT_RETURNED),
    "return_text_replacement_offsets": (False, _NOT_RETURNED),
    "sanitize_control_tokens": (False, "the texts have no control tokens"),
}
_IGNORED = ("verbose",)
_FOR_BOTH = ("return_tensors",)


def split_options(
    options: dict[str, Any],
    image_names: set[str],
    text_options: tuple[str, ...] = TEXT_OPTIONS,
    fixed_options: dict[str, tuple[Any, str]] = FIXED_TEXT_OPTIONS,
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Separates the options of a call.

    Args:
        options: Single options and groups, as given.
        image_names: Names of the options of the image processor.
        text_options: Names of the options for texts.
        fixed_options: Options of tokenizers with their only supported value and the reason.

    Returns:
        `return_tensors`, the options for texts, and the options for images.

    Raises:
        TypeError: If an option or group is unknown, or an option is in the group of the other modality.
        ValueError: If an option is given twice or has an unsupported value, or there are other modalities.
    """
    _check_inputs(options)
    text_names = {*text_options, *fixed_options, *_IGNORED, *_FOR_BOTH}
    known = {TEXT_GROUP: text_names, IMAGE_GROUP: image_names | {*_FOR_BOTH}}
    known |= {group: text_names | image_names for group in (COMMON_GROUP, "")}
    found: dict[str, tuple[Any, str]] = {}
    for group, members in _groups(options).items():
        _check_known(members, known[group], group, text_options, image_names)
        for name, value in members.items():
            _check_once(name, value, group, found)
            found[name] = (value, group)
    chosen = {name: value for name, (value, _) in found.items()}
    _check_fixed(chosen, fixed_options)
    text = {name: chosen[name] for name in text_options if chosen.get(name) is not None}
    images = {name: value for name, value in chosen.items() if name in image_names and name not in _FOR_BOTH}
    return chosen.get("return_tensors"), text, images


def _check_inputs(options: dict[str, Any]) -> None:
    for name in OTHER_INPUTS:
        if options.get(name) is not None:
            raise ValueError(f"{name} is {shown(options[name])}: CB-ViLA takes images and texts only; leave it out")


def _groups(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the options of each group; single options are in the group `""`."""
    single = {
        name: value for name, value in options.items() if not name.endswith("_kwargs") and name not in OTHER_INPUTS
    }
    groups: dict[str, dict[str, Any]] = {"": single}
    for name in sorted(options.keys() - single.keys() - set(OTHER_INPUTS)):
        if name in OTHER_GROUPS:
            continue
        if name not in (TEXT_GROUP, IMAGE_GROUP, COMMON_GROUP):
            raise TypeError(
                f"there is no group of options {shown(name)}; choose text_kwargs, images_kwargs or common_kwargs"
            )
        if not isinstance(options[name], dict | None):
            raise TypeError(f"{name} is {shown(options[name])}; it must be a dictionary of options")
        groups[name] = options[name] or {}
    return groups


def _check_known(
    members: dict[str, Any], known: set[str], group: str, text_options: tuple[str, ...], image_names: set[str]
) -> None:
    unknown = sorted(set(members) - known)
    if unknown:
        where = f" in {group}" if group else ""
        raise TypeError(
            f"the processor got unknown options {shown(unknown)}{where}; it accepts {', '.join(text_options)} for "
            f"texts and {', '.join(sorted(image_names))} for images"
        )


def _check_once(name: str, value: Any, group: str, found: dict[str, tuple[Any, str]]) -> None:
    if name not in found:
        return
    other, other_group = found[name]
    # Single and in the group of one modality is an error in all of transformers, even with equal values.
    is_single = other_group == "" and group in (TEXT_GROUP, IMAGE_GROUP)
    if is_single or type(other) is not type(value) or other != value:
        where = f" in {other_group}" if other_group else ""
        raise ValueError(
            f"{name} is given twice, as {shown(value)} in {group} and as {shown(other)}{where}; leave one out"
        )


def _check_fixed(chosen: dict[str, Any], fixed_options: dict[str, tuple[Any, str]]) -> None:
    for name, (value, reason) in fixed_options.items():
        given = chosen.get(name)
        if given is not None and given != value:
            raise ValueError(f"{name}={shown(given)}: {reason}; leave it out")
