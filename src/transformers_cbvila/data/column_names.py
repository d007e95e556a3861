"""Names of columns that are looked for where none is given."""

# Columns with captions, in this order; the last two are those of Karpathy's splits.
CAPTION_COLUMNS = ("captions", "caption", "text", "txt", "sentences_raw", "sentences")
