"""Functions of params: a module as one (`fo.functional`), a run of steps as one (`fo.unroll`)."""
