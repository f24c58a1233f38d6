"""Searches by ask and tell; one file per method."""

from funcopt.es.search.ars import ARSState as ARSState, ars as ars
from funcopt.es.search.cem import CEMState as CEMState, cem as cem
from funcopt.es.search.cma_es import CMAESState as CMAESState, cma_es as cma_es
from funcopt.es.search.evaluate import History as History, evaluator as evaluator, run as run
from funcopt.es.search.openai_es import OpenAIESState as OpenAIESState, openai_es as openai_es
from funcopt.es.search.pgpe import PGPEState as PGPEState, pgpe as pgpe
from funcopt.es.search.population import Population as Population
from funcopt.es.search.protocol import Search as Search
from funcopt.es.search.restarts import RestartsState as RestartsState, restarts as restarts
from funcopt.es.search.sep_cma_es import SepCMAESState as SepCMAESState, sep_cma_es as sep_cma_es
from funcopt.es.search.simple_es import SimpleESState as SimpleESState, simple_es as simple_es
from funcopt.es.search.snes import SNESState as SNESState, snes as snes
from funcopt.es.search.xnes import XNESState as XNESState, xnes as xnes
