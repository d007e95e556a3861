"""A WordPiece vocabulary of one's own, for models too small to carry BERT's 30,522 pieces."""

from collections.abc import Iterable

from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizer

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_wordpiece(texts: Iterable[str], vocab_size: int, max_length: int) -> BertTokenizer:
    """Trains a lower-casing WordPiece tokenizer on texts.

    Args:
        vocab_size: Largest number of pieces, special tokens included.
        max_length: Longest text in tokens that the model takes.
    """
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(
        texts, vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False, limit_alphabet=200
    )
    return BertTokenizer(vocab=trainer.get_vocab(), model_max_length=max_length)
