"""Saving and resuming: any state as a flat mapping from paths to tensors, and as a file that is whole or is refused."""

from funcopt.checkpoint.files import load as load, save as save
from funcopt.checkpoint.mapping import load_state_dict as load_state_dict, migrate as migrate, state_dict as state_dict
from funcopt.core.door.namespaces import open_up

open_up(__name__, "checkpoint.")
del open_up
