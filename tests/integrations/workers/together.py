"""The checks of all these workers in one launch: two ranks that start take longer than most checks."""

from tests.integrations.workers import controllers, copies, every_row, reductions, sharded, sharded_controllers
from tests.integrations.workers.common import main

if __name__ == "__main__":
    main(*(worker.__name__ for worker in (copies, sharded, reductions, every_row, controllers, sharded_controllers)))
