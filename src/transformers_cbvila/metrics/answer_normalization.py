"""VQAv2's answer normalization, as in the challenge's evaluation script (GT-Vision-Lab/VQA, vqaEval.py, c4e6a0e).

Where the script differs from the description on the challenge's page, the script is followed: published results come
from it.
"""

import re

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WORDS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = frozenset(("a", "an", "the"))

# "its", "were", "well", "ill", "shed" and the like are words of their own and are not among these.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _with_one_missing(contraction: str) -> list[str]:
    """Returns the contraction with each of its apostrophes left out in turn."""
    return [contraction[:place] + contraction[place + 1 :] for place, sign in enumerate(contraction) if sign == "'"]


_CORRECTED = {misspelt: right for right in _CONTRACTIONS.split() for misspelt in _with_one_missing(right)}
_CORRECTED["somebody'd"] = "somebodyd"  # reversed in the script as well


def normalize_answer(answer: str) -> str:
    """Normalizes a predicted answer.

    Removes punctuation ([`strip_punctuation`]), then converts to lower case, number words to digits, removes articles,
    and restores a missing apostrophe of a contraction.

    Args:
        answer: Free text, e.g. `"The two, dogs."`.

    Returns:
        The normalized text, words separated by single spaces, e.g. `"2 dogs"`; empty if nothing is left.
    """
    words = (_NUMBER_WORDS.get(word, word) for word in strip_punctuation(answer).lower().split())
    return " ".join(_CORRECTED.get(word, word) for word in words if word not in _ARTICLES)


def strip_punctuation(answer: str) -> str:
    """Removes punctuation, the only normalization of the annotators' answers.

    Signs become spaces, or are removed beside a space, or if the answer has a comma between digits. Periods are
    removed unless a digit follows; apostrophes, colons, `&`, `%`, `$`, `#`, `*` and `~` stay.
    """
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    has_thousands = re.search(r"\d,\d", answer) is not None
    text = answer
    for sign in _PUNCTUATION:
        beside_space = f"{sign} " in answer or f" {sign}" in answer
        text = text.replace(sign, "" if has_thousands or beside_space else " ")
    return re.sub(r"\.(?!\d)", "", text)
