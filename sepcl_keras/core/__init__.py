"""What all parts need: bad input, atomic files, arrays on disk, backend and device choices."""
