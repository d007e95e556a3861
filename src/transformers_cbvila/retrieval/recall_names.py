"""What figures of retrieval are called."""

DEPTHS = (1, 5, 10)
WAYS = ("text", "image")  # what is found
ORDERS = ("", "_reranked", "_combined", "_fitted")  # endings of recalls: by similarity, by matching, by both


def recall_names(ending: str = "") -> list[str]:
    """Returns the names of the recalls, both ways and at all depths, with an ending such as `_reranked`."""
    return [f"{way}_retrieval_r{depth}{ending}" for way in WAYS for depth in DEPTHS]
