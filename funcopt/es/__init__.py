"""Evolution strategies: gradients of objectives that cannot be differentiated, and searches by ask and tell."""

from funcopt.es.rl.cartpole import CartPoleState as CartPoleState, cartpole as cartpole
from funcopt.es.rl.environment import Environment as Environment
from funcopt.es.rl.mountain_car import MountainCarState as MountainCarState, mountain_car as mountain_car
from funcopt.es.rl.pendulum import PendulumState as PendulumState, pendulum as pendulum
from funcopt.es.shaping import baseline as baseline, bounded as bounded, shaping as shaping
