"""Evolution strategies: gradients of objectives that cannot be differentiated, and searches by ask and tell."""

from funcopt.core.door.namespaces import open_up
from funcopt.core.door.renamed import moved
from funcopt.es.domain import Domain as Domain, domain as domain
from funcopt.es.estimate import compat as compat
from funcopt.es.estimate.autograd import differentiable as differentiable
from funcopt.es.estimate.grad import grad as grad, grad_and_value as grad_and_value
from funcopt.es.estimate.info import Info as Info
from funcopt.es.estimate.layerwise import (
    Layers as Layers,
    OnlySelectedState as OnlySelectedState,
    group_paths as group_paths,
    layers as layers,
    layerwise as layerwise,
    only_selected as only_selected,
)
from funcopt.es.estimate.persistent import (
    Persistent as Persistent,
    PersistentState as PersistentState,
    Unrolled as Unrolled,
    UnrolledInfo as UnrolledInfo,
    UnrolledState as UnrolledState,
    persistent as persistent,
    unrolled as unrolled,
)
from funcopt.es.estimate.spsa import SPSAInfo as SPSAInfo, spsa_replay as spsa_replay, spsa_step as spsa_step
from funcopt.es.estimate.stateful import Estimator as Estimator, EstimatorState as EstimatorState, estimator as estimator
from funcopt.es.noise.distributions import Law as Law, law_of as law_of, sparse as sparse, sphere as sphere
from funcopt.es.noise.guided import Surrogates as Surrogates, guided as guided, push_surrogate as push_surrogate, surrogates as surrogates
from funcopt.es.noise.low_rank import low_rank as low_rank, split as split
from funcopt.es.noise.orthogonal import orthogonal as orthogonal
from funcopt.es.rl.cartpole import CartPoleState as CartPoleState, cartpole as cartpole
from funcopt.es.rl.cells import (
    GRUCell as GRUCell,
    LSTMCell as LSTMCell,
    RNNCell as RNNCell,
    gru_cell as gru_cell,
    lstm_cell as lstm_cell,
    rnn_cell as rnn_cell,
)
from funcopt.es.rl.environment import Environment as Environment
from funcopt.es.rl.episode import Trajectory as Trajectory
from funcopt.es.rl.gymnasium import GymnasiumRollout as GymnasiumRollout, gymnasium_rollout as gymnasium_rollout
from funcopt.es.rl.mountain_car import MountainCarState as MountainCarState, mountain_car as mountain_car
from funcopt.es.rl.normalize import (
    ObservationStats as ObservationStats,
    merge_observations as merge_observations,
    normalize_observation as normalize_observation,
    observation_stats as observation_stats,
    push_observation as push_observation,
)
from funcopt.es.rl.pendulum import PendulumState as PendulumState, pendulum as pendulum
from funcopt.es.rl.rollout import rollout as rollout, trajectory as trajectory
from funcopt.es.search import (
    ARSState as ARSState,
    CEMState as CEMState,
    CMAESState as CMAESState,
    History as History,
    OpenAIESState as OpenAIESState,
    PGPEState as PGPEState,
    Population as Population,
    RestartsState as RestartsState,
    Search as Search,
    SepCMAESState as SepCMAESState,
    SimpleESState as SimpleESState,
    SNESState as SNESState,
    XNESState as XNESState,
    ars as ars,
    cem as cem,
    cma_es as cma_es,
    evaluator as evaluator,
    openai_es as openai_es,
    pgpe as pgpe,
    restarts as restarts,
    run as run,
    sep_cma_es as sep_cma_es,
    simple_es as simple_es,
    snes as snes,
    xnes as xnes,
)
from funcopt.es.search.clipup import ClipUpState as ClipUpState, clipup as clipup
from funcopt.es.shaping.shaping import baseline as baseline, bounded as bounded, shaping as shaping

open_up(__name__, "es.", classes=("GRUCell", "LSTMCell", "RNNCell", "Search", "Domain", "GymnasiumRollout"))
open_up("funcopt.es.estimate.compat", "es.compat.")
moved(
    {
        "funcopt.es.autograd": "funcopt.es.estimate.autograd",
        "funcopt.es.blocks": "funcopt.es.estimate.layerwise",
        "funcopt.es.clipup": "funcopt.es.search.clipup",
        "funcopt.es.compat": "funcopt.es.estimate.compat",
        "funcopt.es.estimator": "funcopt.es.estimate.stateful",
        "funcopt.es.gradient": "funcopt.es.estimate.grad",
        "funcopt.es.guided": "funcopt.es.noise.guided",
        "funcopt.es.info": "funcopt.es.estimate.info",
        "funcopt.es.laws": "funcopt.es.noise.distributions",
        "funcopt.es.low_rank": "funcopt.es.noise.low_rank",
        "funcopt.es.orthogonal": "funcopt.es.noise.orthogonal",
        "funcopt.es.persistent": "funcopt.es.estimate.persistent",
        "funcopt.es.two_point": "funcopt.es.estimate.spsa",
    }
)
del moved, open_up
