"""Keywords that are handed on, by name and kind: `**settings: Unpack[Keywords]`, which Python itself has from 3.11 on."""

import sys

if sys.version_info >= (3, 11):
    from typing import TypedDict as TypedDict, Unpack as Unpack
else:
    from typing_extensions import TypedDict as TypedDict, Unpack as Unpack

__all__ = ["TypedDict", "Unpack"]
