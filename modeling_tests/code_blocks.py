"""The code in pages of the documentation, which tests run."""

import re


def code_blocks(text, language="python"):
    """Returns what stands in the blocks of a language in a Markdown text."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
