"""What several tests need."""

from helpers import enforcement

__all__ = ["enforcement"]
