"""VQAv2's answer normalisation, after the description on the challenge's evaluation page (visualqa.org/evaluation).

Lower case; periods go unless they are part of a decimal number; commas between digits go; number words become digits;
articles go; a missing apostrophe of a contraction is put back; all other punctuation except apostrophes and colons
becomes a space.
"""

import re

_NUMBER_WORDS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = frozenset(("a", "an", "the"))

# Only contractions whose letters are no word of their own: "its", "were", "well", "ill" and "shed" stay as they are.
_CONTRACTIONS = """
ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't shouldn't
wasn't weren't won't wouldn't couldn't've shouldn't've wouldn't've could've might've must've should've would've
i'm i've you'd you'll you're you've he's he'd it'd it'll she's they'd they'll they're they've we've that's that'd
there's there'd there're here's what's what'll what're what've who's who'd who'll who've where's where'd when's
how's how'd how'll why's let's o'clock ma'am y'all somebody's someone's something's nobody's
"""
_WITH_APOSTROPHE = {contraction.replace("'", ""): contraction for contraction in _CONTRACTIONS.split()}


def normalize_answer(answer: str) -> str:
    """Normalises one answer so that spelling variants of it compare equal.

    Args:
        answer: free text, e.g. `"The two, dogs."`.

    Returns:
        The normalised text, words separated by single spaces, e.g. `"2 dogs"`; empty when nothing is left.
    """
    text = answer.lower().replace("\u2019", "'")
    text = re.sub(r"(?<!\d)\.|\.(?!\d)", "", text)
    text = re.sub(r"(?<=\d),(?=\d)", "", text)
    # Underscores count as punctuation although \w holds them; the periods that are left belong to decimals.
    text = re.sub(r"[^\w\s.':]|_", " ", text)
    words = (_NUMBER_WORDS.get(word, word) for word in text.split() if word not in _ARTICLES)
    return " ".join(_WITH_APOSTROPHE.get(word, word) for word in words)
