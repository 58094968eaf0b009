"""Where reflections live: op log, indexes, embedders, retrieval, curation."""
