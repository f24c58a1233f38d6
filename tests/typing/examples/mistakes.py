"""What an editor marks: names that are not there, and words and kinds that are not taken. Each line here is wrong: a checker
that took one of them would say that its `type: ignore` is not needed."""

import torch

import funcopt as fo

w = torch.nn.Parameter(torch.zeros(2))

print(fo.adamv)  # type: ignore
print(fo.es.cma)  # type: ignore
print(fo.torch_optim.AdamW)  # type: ignore
fo.torch_optim.adamw([w], learning_rate=0.1)  # type: ignore
fo.torch_optim.adamw([w], flat="yes")  # type: ignore
fo.torch_optim.adaptive([w], inner="adamv")  # type: ignore
fo.torch_optim.optiroulette([w], swich="epoch")  # type: ignore
fo.torch_optim.adamw([w]).signal()  # type: ignore
fo.es.cma_es(pop_size=3)  # type: ignore
fo.es.cma_es(variant="pycmaes")  # type: ignore
fo.es.grad(lambda x: x.sum(), popsize=2, sigma=0.1, shaping="ranks")  # type: ignore
fo.es.grad(lambda x: x.sum(), popsize=2, sigma=0.1, vectorize="vmapp")  # type: ignore
fo.es.cma_es().tell(torch.zeros(3), torch.zeros(3))  # type: ignore
