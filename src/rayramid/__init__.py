"""rayramid: train and serve video models by pyramidal flow matching, on Ray."""

__version__ = "0.1.0"
