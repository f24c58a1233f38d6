"""The classes of `fo.torch_optim`: one for each ready-made optimizer and controller, and what makes them."""

from funcopt.torch_optim.classes.make import optimizer_class as optimizer_class
