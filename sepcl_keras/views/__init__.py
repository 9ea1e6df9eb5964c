"""From separated scenes to pairs of patches: log-mel, views on disk, pairs, augmentation."""
