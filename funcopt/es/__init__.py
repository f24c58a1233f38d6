"""Evolution strategies: gradients of objectives that cannot be differentiated, and searches by ask and tell."""

from funcopt.es import compat as compat
from funcopt.es.autograd import differentiable as differentiable
from funcopt.es.blocks import (
    Layers as Layers,
    OnlySelectedState as OnlySelectedState,
    group_paths as group_paths,
    layers as layers,
    layerwise as layerwise,
    only_selected as only_selected,
)
from funcopt.es.clipup import ClipUpState as ClipUpState, clipup as clipup
from funcopt.es.estimator import Estimator as Estimator, EstimatorState as EstimatorState, estimator as estimator
from funcopt.es.gradient import grad as grad, grad_and_value as grad_and_value
from funcopt.es.guided import Surrogates as Surrogates, guided as guided, push_surrogate as push_surrogate, surrogates as surrogates
from funcopt.es.info import Info as Info
from funcopt.es.laws import Law as Law, law_of as law_of, sparse as sparse, sphere as sphere
from funcopt.es.low_rank import low_rank as low_rank, split as split
from funcopt.es.orthogonal import orthogonal as orthogonal
from funcopt.es.persistent import (
    Persistent as Persistent,
    PersistentState as PersistentState,
    Unrolled as Unrolled,
    UnrolledInfo as UnrolledInfo,
    UnrolledState as UnrolledState,
    persistent as persistent,
    unrolled as unrolled,
)
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
    run as run,
    sep_cma_es as sep_cma_es,
    simple_es as simple_es,
    snes as snes,
    xnes as xnes,
)
from funcopt.es.shaping import baseline as baseline, bounded as bounded, shaping as shaping
from funcopt.es.two_point import SPSAInfo as SPSAInfo, spsa_replay as spsa_replay, spsa_step as spsa_step
