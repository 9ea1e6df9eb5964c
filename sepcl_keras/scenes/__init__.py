"""Recordings and made sounds, and the scenes that mix them."""
