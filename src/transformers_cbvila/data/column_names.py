"""Names of columns that are looked for where none is given."""

from collections.abc import Sequence

# Columns with captions, in this order; the last two are those of Karpathy's splits.
CAPTION_COLUMNS = ("captions", "caption", "text", "txt", "sentences_raw", "sentences")

# Columns with labels or attributes of images, in this order; the last is that of scenes.
LABEL_COLUMNS = ("label", "labels", "objects")

# Columns with label maps, which have the class of each pixel.
LABEL_MAP_COLUMNS = ("label_map",)

# Columns with texts that are false of the image although they are close to its captions.
NEGATIVE_CAPTION_COLUMNS = ("negative_captions", "negative_caption")


def column_help(text: str, usual: Sequence[str]) -> str:
    """Returns the help text of an option that names a column, with the usual columns as its default."""
    names = ", ".join(usual[:-1]) + f" or {usual[-1]}, whichever there is" if len(usual) > 1 else usual[0]
    return f"{text}; default: {names}."
