"""Keywords that are handed on, by name and kind: `**settings: Unpack[Keywords]`, which Python itself has from 3.11 on."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or sys.version_info < (3, 11):
    from typing_extensions import TypedDict as TypedDict, Unpack as Unpack
else:
    from typing import TypedDict as TypedDict, Unpack as Unpack

__all__ = ["TypedDict", "Unpack"]
