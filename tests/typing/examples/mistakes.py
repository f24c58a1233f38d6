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
fo.es.run(fo.es.snes(), lambda x: x.sum(), torch.zeros(3), 0, 5, chunksize=2)  # type: ignore
fo.es.run(fo.es.snes(), lambda x: x.sum(), torch.zeros(3), 0, 5, vectorize="vmapp")  # type: ignore
fo.es.evaluator(lambda x: x.sum(), popsize=4)  # type: ignore
fo.es.grad_and_value(lambda x: x.sum(), popsize=2, sigma=0.1, shaping="ranks")  # type: ignore
fo.es.differentiable(lambda x: x.sum(), popsize=2, sigma=0.1, maximize=True)  # type: ignore
fo.aees(fo.sgd(0.1), (0.5, 1.0), exploraton=0.1)  # type: ignore
fo.optiroulette({"a": fo.Member(fo.sgd(0.1))}, swich="epoch")  # type: ignore
fo.es.cma_es().tell(torch.zeros(3), torch.zeros(3))  # type: ignore
