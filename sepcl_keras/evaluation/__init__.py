"""How good embeddings are: metrics, classifiers on frozen embeddings, retrieval, controls, intervals."""
