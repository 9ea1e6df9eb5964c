"""The encoder CNN14: its network, heads and objectives, its training, published checkpoints, embedding, export."""
