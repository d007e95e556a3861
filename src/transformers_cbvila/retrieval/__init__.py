"""Image-text retrieval: galleries in memory and on disk, similarity search, re-ranking by matching, the retriever."""
