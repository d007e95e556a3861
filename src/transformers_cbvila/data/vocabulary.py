"""Training of a WordPiece vocabulary, for models too small for BERT's 30,522 pieces."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertTokenizer

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_ALPHABET = 200  # most characters
_MIN_COUNT = 2  # of a pair of pieces that is merged
_INSIDE = "##"  # prefix of pieces that do not begin a word


def train_wordpiece(texts: Iterable[str], vocab_size: int, max_length: int) -> BertTokenizer:
    """Trains a lower-casing WordPiece tokenizer on texts.

    The same texts give the same vocabulary in every process and run: pairs of equal count are merged in the order of
    their letters. (The trainer of `tokenizers` merges them in an order that differs between calls, so that processes
    and repeated runs would not agree on the ids.)

    Args:
        texts: The texts, which may come from a generator.
        vocab_size: Largest number of pieces, special tokens included; letters are never left out for it.
        max_length: Longest text in tokens that the model takes.
    """
    words = _count_words(texts)
    letters = Counter[str]()
    for word, count in words.items():
        for letter in word:
            letters[letter] += count
    alphabet = set(sorted(letters, key=lambda letter: (-letters[letter], letter))[:_ALPHABET])
    spelt = [
        ([pieces[0], *(_INSIDE + letter for letter in pieces[1:])], count)
        for word, count in sorted(words.items())
        if (pieces := [letter for letter in word if letter in alphabet])
    ]
    single = sorted(alphabet) + sorted({piece for pieces, _ in spelt for piece in pieces} - alphabet)
    merged = _merge(spelt, vocab_size - len(SPECIAL_TOKENS) - len(single))
    vocabulary = list(dict.fromkeys([*SPECIAL_TOKENS, *single, *merged]))
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(vocabulary)}, model_max_length=max_length)


def _count_words(texts: Iterable[str]) -> Counter[str]:
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    words = Counter[str]()
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    return words


def _merge(words: list[tuple[list[str], int]], limit: int) -> list[str]:
    """Returns up to `limit` new pieces, each merged from the most frequent pair of neighbours at its turn.

    Args:
        words: Pieces of each word, which are changed, and how often the word occurs.
        limit: Largest number of new pieces.
    """
    counts = Counter[tuple[str, str]]()
    places: dict[tuple[str, str], set[int]] = defaultdict(set)
    for place, (pieces, count) in enumerate(words):
        for pair in zip(pieces, pieces[1:], strict=False):
            counts[pair] += count
            places[pair].add(place)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    made: dict[str, None] = {}
    while queue and len(made) < limit:
        negative, pair = heapq.heappop(queue)
        if counts[pair] != -negative:
            continue  # an entry with an old count; the current one is also in the queue
        if -negative < _MIN_COUNT:
            break
        piece = pair[0] + pair[1].removeprefix(_INSIDE)
        made[piece] = None
        changed = set()
        for place in places.pop(pair):
            pieces, count = words[place]
            joined = _join(pieces, pair, piece)
            for old in zip(pieces, pieces[1:], strict=False):
                counts[old] -= count
                changed.add(old)
            for new in zip(joined, joined[1:], strict=False):
                counts[new] += count
                places[new].add(place)
                changed.add(new)
            words[place] = (joined, count)
        for other in changed:
            if counts[other] > 0:
                heapq.heappush(queue, (-counts[other], other))
    return list(made)


def _join(pieces: list[str], pair: tuple[str, str], piece: str) -> list[str]:
    """Returns the pieces of a word with every occurrence of a pair, from the left, merged."""
    joined: list[str] = []
    position = 0
    while position < len(pieces):
        if tuple(pieces[position : position + 2]) == pair:
            joined.append(piece)
            position += 2
        else:
            joined.append(pieces[position])
            position += 1
    return joined
