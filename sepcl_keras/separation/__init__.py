"""The separator TDCN++: its network, MixIT, its training, how well it separates, published checkpoints, files."""
