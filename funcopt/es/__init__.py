"""Evolution strategies: gradients of objectives that cannot be differentiated, and searches by ask and tell."""

from funcopt.es.laws import Law as Law, law_of as law_of, sparse as sparse, sphere as sphere
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
from funcopt.es.rl.rollout import Trajectory as Trajectory, rollout as rollout, trajectory as trajectory
from funcopt.es.shaping import baseline as baseline, bounded as bounded, shaping as shaping
