"""One result on every rank of torch.distributed: what each rank needs to stay in step with the others, and how to see that it is."""

from funcopt.core.door.namespaces import open_up
from funcopt.distributed.exchange import broadcast as broadcast, mean as mean
from funcopt.distributed.sync import assert_in_sync as assert_in_sync

open_up(__name__, "distributed.")
del open_up
