"""Tells arguments that were given in the other order, such as a question before its picture."""

import os
from collections.abc import Callable

from ..model.messages_cbvila import shown


def refuse_other_order(usage: str, first: str, second: str, exists: Callable[[str], bool]) -> None:
    """Checks that the second argument is not what the first one should be.

    Args:
        usage: The command with its arguments in order, such as `"cbvila ask PICTURE QUESTION"`.
        first: The first argument, which names something that is there.
        second: The second argument.
        exists: Returns whether there is what a first argument names.

    Raises:
        FileNotFoundError: If there is no `first` and there is a `second`.
    """
    if not exists(first) and exists(second):
        raise FileNotFoundError(
            f"{shown(first, 255)} does not exist, and {shown(second, 255)} does: are they in the other order? "
            f"`{usage}` is right."
        )


def is_picture(name: str) -> bool:
    """Returns whether a name is that of an image file, or an address."""
    from ..model.image_sources_cbvila import is_data_url, is_web_address, to_path

    return is_web_address(name) or is_data_url(name) or os.path.isfile(to_path(name))


def is_model(name: str) -> bool:
    """Returns whether a name is a folder or a bundled checkpoint, or may be a Hub id."""
    from ..bundled import local_or_hub_id

    try:
        local_or_hub_id(name)
    except FileNotFoundError:
        return False
    return True


def is_model_folder(name: str) -> bool:
    """Returns whether a name is a folder or a bundled checkpoint."""
    from ..bundled import bundled_or_same

    return os.path.isdir(bundled_or_same(name))
