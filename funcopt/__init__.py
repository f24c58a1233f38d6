"""funcopt: gradient transforms for PyTorch, chained like sentences.

state          = tx.init(params)
updates, state = tx.update(updates, state, params, loss=loss)
params         = fo.apply_updates(params, updates)
"""

from typing import TYPE_CHECKING

from funcopt import checkpoint as checkpoint, rules as rules, schedules as schedules
from funcopt.controllers.adaptive.adaptive import (
    AdaptiveState as AdaptiveState,
    AdaptiveTransformation as AdaptiveTransformation,
    adaptive as adaptive,
)
from funcopt.controllers.pilot.agreement_policy import AgreementPolicyState as AgreementPolicyState, agreement_policy as agreement_policy
from funcopt.controllers.pilot.pilot import pilot as pilot, policy_diagnostics as policy_diagnostics
from funcopt.controllers.pulseopt.aees import aees as aees
from funcopt.controllers.pulseopt.episode_log import episode_log as episode_log
from funcopt.controllers.pulseopt.episodic import UcbEpisodesState as UcbEpisodesState
from funcopt.controllers.pulseopt.ucb_episodes import ucb_episodes as ucb_episodes
from funcopt.controllers.rate.find_rate import FindRateState as FindRateState, find_rate as find_rate
from funcopt.controllers.rate.rate_free import rate_free as rate_free
from funcopt.controllers.roulette.compatibility import Compatibility as Compatibility, Group as Group
from funcopt.controllers.roulette.members import Member as Member
from funcopt.controllers.roulette.pool import Failures as Failures, Recovery as Recovery
from funcopt.controllers.roulette.pool_migration import pool_migration as pool_migration
from funcopt.controllers.roulette.profile import Profile as Profile, optiroulette_profile as optiroulette_profile
from funcopt.controllers.roulette.roulette import Roulette as Roulette, optiroulette as optiroulette, roulette as roulette
from funcopt.controllers.roulette.state import RouletteState as RouletteState
from funcopt.controllers.roulette.switch_rules import SwitchRules as SwitchRules, switch_rules as switch_rules
from funcopt.controllers.roulette.transfer import Roles as Roles
from funcopt.controllers.roulette.warmup import Warmup as Warmup, fixed_warmup as fixed_warmup, plateau_warmup as plateau_warmup
from funcopt.core import moments as moments, numerics as numerics, random as random, tree as tree
from funcopt.core.apply import apply_updates as apply_updates, incremental_update as incremental_update, periodic_update as periodic_update
from funcopt.core.chain import (
    chain as chain,
    identity as identity,
    named_chain as named_chain,
    stateless as stateless,
    stateless_with_tree_map as stateless_with_tree_map,
)
from funcopt.core.control import control as control
from funcopt.core.door.namespaces import open_up, told_outside
from funcopt.core.door.renamed import moved
from funcopt.core.functional import microbatching as microbatching
from funcopt.core.functional.module import functional as functional
from funcopt.core.functional.unroll import unroll as unroll
from funcopt.core.masking import MaskedNode as MaskedNode
from funcopt.core.math import projections as projections
from funcopt.core.protocol import (
    EmptyState as EmptyState,
    GradientTransformation as GradientTransformation,
    Scalar as Scalar,
    ScalarOrSchedule as ScalarOrSchedule,
    Schedule as Schedule,
    TensorTree as TensorTree,
    TransformInitFn as TransformInitFn,
    TransformUpdateFn as TransformUpdateFn,
    init_empty_state as init_empty_state,
)
from funcopt.core.signals import Signals as Signals, Speaks as Speaks, read_signals as read_signals, scoped as scoped
from funcopt.core.states.find import find as find, find_all as find_all, replace as replace
from funcopt.core.states.map_params import tree_map_params as tree_map_params
from funcopt.execute.layouts.layout import Flat as Flat, Layout as Layout
from funcopt.execute.probe import Checked as Checked, check as check
from funcopt.execute.step import Step as Step, make_step as make_step
from funcopt.optimizers.accsgd import AccSgdState as AccSgdState, accsgd as accsgd, scale_by_accsgd as scale_by_accsgd
from funcopt.optimizers.acprop import acprop as acprop, scale_by_acprop as scale_by_acprop
from funcopt.optimizers.adabelief import adabelief as adabelief, scale_by_belief as scale_by_belief
from funcopt.optimizers.adadelta import (
    ScaleByAdaDeltaState as ScaleByAdaDeltaState,
    adadelta as adadelta,
    scale_by_adadelta as scale_by_adadelta,
)
from funcopt.optimizers.adafactor import (
    FactoredState as FactoredState,
    adafactor as adafactor,
    scale_by_factored_rms as scale_by_factored_rms,
)
from funcopt.optimizers.adagrad import ScaleByRssState as ScaleByRssState, adagrad as adagrad, scale_by_rss as scale_by_rss
from funcopt.optimizers.adahessian import adahessian as adahessian, scale_by_adahessian as scale_by_adahessian
from funcopt.optimizers.adai import AdaiState as AdaiState, adai as adai, scale_by_adai as scale_by_adai
from funcopt.optimizers.adam import ScaleByAdamState as ScaleByAdamState, adam as adam, scale_by_adam as scale_by_adam
from funcopt.optimizers.adam_mini import (
    ScaleByAdamMiniState as ScaleByAdamMiniState,
    adam_mini as adam_mini,
    scale_by_adam_mini as scale_by_adam_mini,
)
from funcopt.optimizers.adamax import adamax as adamax, adamaxw as adamaxw, scale_by_adamax as scale_by_adamax
from funcopt.optimizers.adamp import adamp as adamp, scale_by_adamp as scale_by_adamp
from funcopt.optimizers.adamuon import (
    ScaleByEntryRmsState as ScaleByEntryRmsState,
    adamuon as adamuon,
    scale_by_entry_rms as scale_by_entry_rms,
)
from funcopt.optimizers.adamw import adamw as adamw
from funcopt.optimizers.adan import ScaleByAdanState as ScaleByAdanState, adan as adan, scale_by_adan as scale_by_adan
from funcopt.optimizers.adanorm import AdaNormState as AdaNormState, adanorm as adanorm, scale_by_adanorm as scale_by_adanorm
from funcopt.optimizers.ademamix import (
    ScaleByAdemamixState as ScaleByAdemamixState,
    ScaleBySimplifiedAdEMAMixState as ScaleBySimplifiedAdEMAMixState,
    ademamix as ademamix,
    scale_by_ademamix as scale_by_ademamix,
    scale_by_simplified_ademamix as scale_by_simplified_ademamix,
    simplified_ademamix as simplified_ademamix,
)
from funcopt.optimizers.adgd import AdgdState as AdgdState, adgd as adgd, scale_by_adgd as scale_by_adgd
from funcopt.optimizers.adopt import adopt as adopt, scale_by_adopt as scale_by_adopt
from funcopt.optimizers.aggmo import AggMoState as AggMoState, aggmo as aggmo, scale_by_aggmo as scale_by_aggmo
from funcopt.optimizers.amsgrad import ScaleByAmsgradState as ScaleByAmsgradState, amsgrad as amsgrad, scale_by_amsgrad as scale_by_amsgrad
from funcopt.optimizers.apollo import ApolloState as ApolloState, apollo as apollo, scale_by_apollo as scale_by_apollo
from funcopt.optimizers.apollo_dqn import (
    ApolloDqnState as ApolloDqnState,
    apollo_dqn as apollo_dqn,
    scale_by_apollo_dqn as scale_by_apollo_dqn,
)
from funcopt.optimizers.came import ScaleByCameState as ScaleByCameState, came as came, scale_by_came as scale_by_came
from funcopt.optimizers.cocob import COCOBState as COCOBState, cocob as cocob, scale_by_cocob as scale_by_cocob
from funcopt.optimizers.dadapt_adamw import DAdaptAdamWState as DAdaptAdamWState, dadapt_adamw as dadapt_adamw
from funcopt.optimizers.dimension_numbers import MuonDimensionNumbers as MuonDimensionNumbers
from funcopt.optimizers.dog import (
    DoGState as DoGState,
    DoWGState as DoWGState,
    ScaleByDistanceOverGradientsState as ScaleByDistanceOverGradientsState,
    dog as dog,
    dowg as dowg,
    scale_by_distance_over_gradients as scale_by_distance_over_gradients,
    scale_by_dog as scale_by_dog,
    scale_by_dowg as scale_by_dowg,
)
from funcopt.optimizers.dpsgd import dpsgd as dpsgd
from funcopt.optimizers.fira import FiraState as FiraState, fira as fira, scale_by_fira as scale_by_fira
from funcopt.optimizers.fromage import fromage as fromage
from funcopt.optimizers.galore import GaLoreState as GaLoreState, galore as galore, scale_by_galore as scale_by_galore
from funcopt.optimizers.gravity import GravityState as GravityState, gravity as gravity, scale_by_gravity as scale_by_gravity
from funcopt.optimizers.lamb import lamb as lamb
from funcopt.optimizers.laprop import ScaleByLapropState as ScaleByLapropState, laprop as laprop, scale_by_laprop as scale_by_laprop
from funcopt.optimizers.lars import lars as lars
from funcopt.optimizers.lbfgs import ScaleByLBFGSState as ScaleByLBFGSState, lbfgs as lbfgs, scale_by_lbfgs as scale_by_lbfgs
from funcopt.optimizers.lion import ScaleByLionState as ScaleByLionState, lion as lion, scale_by_lion as scale_by_lion
from funcopt.optimizers.madgrad import MadgradState as MadgradState, madgrad as madgrad, scale_by_madgrad as scale_by_madgrad
from funcopt.optimizers.matrices import MuonPartitionState as MuonPartitionState
from funcopt.optimizers.momo import MomoAdamState as MomoAdamState, MomoState as MomoState, momo as momo, momo_adam as momo_adam
from funcopt.optimizers.muon import (
    MuonState as MuonState,
    muon as muon,
    scale_by_muon as scale_by_muon,
    scale_by_shape as scale_by_shape,
)
from funcopt.optimizers.muon_with_adam import muon_labels as muon_labels, muon_with_adam as muon_with_adam
from funcopt.optimizers.nadam import (
    ScaleByNadamState as ScaleByNadamState,
    nadam as nadam,
    nadamw as nadamw,
    scale_by_nadam as scale_by_nadam,
)
from funcopt.optimizers.nero import NeroState as NeroState, nero as nero, scale_by_nero as scale_by_nero
from funcopt.optimizers.noisy_sgd import noisy_sgd as noisy_sgd
from funcopt.optimizers.normuon import (
    ScaleByNeuronRmsState as ScaleByNeuronRmsState,
    normuon as normuon,
    scale_by_neuron_rms as scale_by_neuron_rms,
)
from funcopt.optimizers.novograd import novograd as novograd, scale_by_novograd as scale_by_novograd
from funcopt.optimizers.optimistic import (
    ScaleByOptimisticGradientState as ScaleByOptimisticGradientState,
    optimistic_adam_v2 as optimistic_adam_v2,
    optimistic_gradient_descent as optimistic_gradient_descent,
    scale_by_optimistic_gradient as scale_by_optimistic_gradient,
)
from funcopt.optimizers.polyak_sgd import (
    ScaleByPolyakState as ScaleByPolyakState,
    polyak_sgd as polyak_sgd,
    scale_by_polyak as scale_by_polyak,
)
from funcopt.optimizers.prodigy import ProdigyState as ProdigyState, prodigy as prodigy, scale_by_prodigy as scale_by_prodigy
from funcopt.optimizers.psgd import ScaleByPsgdState as ScaleByPsgdState, psgd as psgd, scale_by_psgd as scale_by_psgd
from funcopt.optimizers.qhadam import qhadam as qhadam, scale_by_qhadam as scale_by_qhadam
from funcopt.optimizers.radam import radam as radam, scale_by_radam as scale_by_radam
from funcopt.optimizers.ranger import ranger as ranger
from funcopt.optimizers.ranger21 import Ranger21State as Ranger21State, ranger21 as ranger21
from funcopt.optimizers.rmsprop import (
    ScaleByRmsState as ScaleByRmsState,
    ScaleByRmsWithCountState as ScaleByRmsWithCountState,
    ScaleByRStdDevState as ScaleByRStdDevState,
    ScaleByRStdDevWithCountState as ScaleByRStdDevWithCountState,
    rmsprop as rmsprop,
    scale_by_rms as scale_by_rms,
    scale_by_stddev as scale_by_stddev,
)
from funcopt.optimizers.rprop import ScaleByRpropState as ScaleByRpropState, rprop as rprop, scale_by_rprop as scale_by_rprop
from funcopt.optimizers.schedule_free_adamw import schedule_free_adamw as schedule_free_adamw
from funcopt.optimizers.schedule_free_sgd import schedule_free_sgd as schedule_free_sgd
from funcopt.optimizers.scion import ScaleByScionState as ScaleByScionState, scale_by_scion as scale_by_scion, scion as scion
from funcopt.optimizers.sgd import sgd as sgd
from funcopt.optimizers.shampoo import ScaleByShampooState as ScaleByShampooState, scale_by_shampoo as scale_by_shampoo, shampoo as shampoo
from funcopt.optimizers.sign_sgd import sign_sgd as sign_sgd
from funcopt.optimizers.signum import signum as signum
from funcopt.optimizers.sm3 import ScaleBySM3State as ScaleBySM3State, scale_by_sm3 as scale_by_sm3, sm3 as sm3
from funcopt.optimizers.soap import ScaleBySoapState as ScaleBySoapState, scale_by_soap as scale_by_soap, soap as soap
from funcopt.optimizers.sophia import SophiaState as SophiaState, scale_by_sophia as scale_by_sophia, sophia as sophia
from funcopt.optimizers.splus import SPlusState as SPlusState, scale_by_splus as scale_by_splus, splus as splus
from funcopt.optimizers.stable_adamw import (
    ScaleByStableAdamState as ScaleByStableAdamState,
    scale_by_stable_adam as scale_by_stable_adam,
    stable_adamw as stable_adamw,
)
from funcopt.optimizers.sure_adam import ScaleBySureAdamState as ScaleBySureAdamState, scale_by_sure_adam as scale_by_sure_adam
from funcopt.optimizers.tam import TamState as TamState, scale_by_tam as scale_by_tam, tam as tam
from funcopt.optimizers.yogi import scale_by_yogi as scale_by_yogi, yogi as yogi
from funcopt.transforms.accumulate import (
    ApplyEvery as ApplyEvery,
    MultiSteps as MultiSteps,
    MultiStepsState as MultiStepsState,
    ShouldSkipUpdateFunction as ShouldSkipUpdateFunction,
    apply_every as apply_every,
    multi_steps as multi_steps,
    skip_large_updates as skip_large_updates,
    skip_not_finite as skip_not_finite,
)
from funcopt.transforms.adaptive_clip import (
    adaptive_grad_clip as adaptive_grad_clip,
    unitwise_clip as unitwise_clip,
    unitwise_norm as unitwise_norm,
)
from funcopt.transforms.average_params import (
    AverageParamsState as AverageParamsState,
    average_params as average_params,
    averaged_params as averaged_params,
)
from funcopt.transforms.backtracking import (
    BacktrackingLinesearchInfo as BacktrackingLinesearchInfo,
    ScaleByBacktrackingLinesearchState as ScaleByBacktrackingLinesearchState,
    scale_by_backtracking_linesearch as scale_by_backtracking_linesearch,
)
from funcopt.transforms.cast_params import CastParamsState as CastParamsState, cast_params as cast_params
from funcopt.transforms.cautious import CautiousState as CautiousState, cautious as cautious
from funcopt.transforms.centralize import centralize as centralize
from funcopt.transforms.clip import clip as clip, clip_by_block_rms as clip_by_block_rms, clip_by_global_norm as clip_by_global_norm
from funcopt.transforms.clip_by_mean_norm import ClipByMeanNormState as ClipByMeanNormState, clip_by_mean_norm as clip_by_mean_norm
from funcopt.transforms.compress_state import (
    CompressedState as CompressedState,
    compress_state as compress_state,
    decompress_state as decompress_state,
)
from funcopt.transforms.conditional import (
    ConditionallyMaskState as ConditionallyMaskState,
    ConditionallyTransformState as ConditionallyTransformState,
    ConditionFn as ConditionFn,
    conditionally_mask as conditionally_mask,
    conditionally_transform as conditionally_transform,
)
from funcopt.transforms.depth import layers_of as layers_of, scale_by_depth as scale_by_depth
from funcopt.transforms.ema import EmaState as EmaState, ema as ema
from funcopt.transforms.flatten import flatten as flatten
from funcopt.transforms.freeze import freeze as freeze, selective_transform as selective_transform, set_to_zero as set_to_zero
from funcopt.transforms.grokfast import GrokfastState as GrokfastState, grokfast as grokfast
from funcopt.transforms.groups import by_path as by_path, describe_groups as describe_groups
from funcopt.transforms.guard import ApplyIfFiniteState as ApplyIfFiniteState, apply_if_finite as apply_if_finite
from funcopt.transforms.hutchinson import (
    HutchinsonState as HutchinsonState,
    hutchinson_estimator_diag_hessian as hutchinson_estimator_diag_hessian,
)
from funcopt.transforms.inject import (
    InjectStatefulHyperparamsState as InjectStatefulHyperparamsState,
    StatefulSchedule as StatefulSchedule,
    WrappedSchedule as WrappedSchedule,
    WrappedScheduleState as WrappedScheduleState,
    inject_hyperparams as inject_hyperparams,
)
from funcopt.transforms.keep_best import KeepBestState as KeepBestState, best_params as best_params, keep_best as keep_best
from funcopt.transforms.line_search import value_and_grad_from_state as value_and_grad_from_state
from funcopt.transforms.lookahead import LookaheadParams as LookaheadParams, LookaheadState as LookaheadState, lookahead as lookahead
from funcopt.transforms.lr_scale import (
    LrScaleState as LrScaleState,
    ScheduledLrScaleState as ScheduledLrScaleState,
    lr_scale as lr_scale,
    scale_by_signal as scale_by_signal,
)
from funcopt.transforms.mars import MarsState as MarsState, mars as mars
from funcopt.transforms.mask import MaskedState as MaskedState, MaskOrFn as MaskOrFn, masked as masked
from funcopt.transforms.mechanize import MechanicState as MechanicState, mechanize as mechanize
from funcopt.transforms.monitor import (
    MonitorState as MonitorState,
    SnapshotState as SnapshotState,
    measure_with_ema as measure_with_ema,
    monitor as monitor,
    snapshot as snapshot,
)
from funcopt.transforms.nans import ZeroNansState as ZeroNansState, zero_nans as zero_nans
from funcopt.transforms.no_decay import no_decay as no_decay, parameter_kinds as parameter_kinds
from funcopt.transforms.noise import AddNoiseState as AddNoiseState, add_gaussian_noise as add_gaussian_noise, add_noise as add_noise
from funcopt.transforms.nonnegative import keep_params_nonnegative as keep_params_nonnegative
from funcopt.transforms.normalize import normalize as normalize, normalize_by_update_norm as normalize_by_update_norm
from funcopt.transforms.orthograd import orthograd as orthograd
from funcopt.transforms.param_block import (
    scale_by_param_block_norm as scale_by_param_block_norm,
    scale_by_param_block_rms as scale_by_param_block_rms,
)
from funcopt.transforms.partition import PartitionState as PartitionState, partition as partition
from funcopt.transforms.plateau import ReduceLROnPlateauState as ReduceLROnPlateauState, reduce_on_plateau as reduce_on_plateau
from funcopt.transforms.privacy import (
    DifferentiallyPrivateAggregateState as DifferentiallyPrivateAggregateState,
    differentially_private_aggregate as differentially_private_aggregate,
    per_example_global_norm_clip as per_example_global_norm_clip,
    per_example_layer_norm_clip as per_example_layer_norm_clip,
)
from funcopt.transforms.project import project as project
from funcopt.transforms.sam import SAMState as SAMState, normalize_adaptively as normalize_adaptively, sam as sam
from funcopt.transforms.scale import ScaleByScheduleState as ScaleByScheduleState, scale as scale, scale_by_schedule as scale_by_schedule
from funcopt.transforms.schedule_free import (
    ScheduleFreeState as ScheduleFreeState,
    schedule_free as schedule_free,
    schedule_free_eval_params as schedule_free_eval_params,
)
from funcopt.transforms.sign import sign as sign
from funcopt.transforms.split import (
    SplitRealAndImaginaryArrays as SplitRealAndImaginaryArrays,
    SplitRealAndImaginaryState as SplitRealAndImaginaryState,
    split_real_and_imaginary as split_real_and_imaginary,
)
from funcopt.transforms.trace import TraceState as TraceState, trace as trace
from funcopt.transforms.trust_ratio import scale_by_trust_ratio as scale_by_trust_ratio
from funcopt.transforms.weight_decay import AddDecayedWeightsState as AddDecayedWeightsState, add_decayed_weights as add_decayed_weights
from funcopt.transforms.zoom import (
    ScaleByZoomLinesearchState as ScaleByZoomLinesearchState,
    ZoomLinesearchInfo as ZoomLinesearchInfo,
    scale_by_zoom_linesearch as scale_by_zoom_linesearch,
)

if TYPE_CHECKING:
    from funcopt import (
        distributed as distributed,
        es as es,
        population as population,
        race as race,
        torch_optim as torch_optim,
        viz as viz,
    )

__version__ = "0.1.0"  # the one place that says it

ON_FIRST_USE = ("distributed", "es", "population", "race", "torch_optim", "viz")  # namespaces that cost something to import

_strangers = open_up(__name__, classes=("Compatibility", "Failures", "Group", "Layout", "Member", "Recovery", "Roles", "Step", "Warmup"))
for _name in ("microbatching", "moments", "numerics", "projections", "random", "tree"):
    globals()[_name] = told_outside(globals()[_name], _name)
del open_up, told_outside
moved({"funcopt.core.flat": "funcopt.execute.layouts.layout"})
del moved

if not TYPE_CHECKING:  # which would take every name for one that is there

    def __getattr__(name):
        if name in ON_FIRST_USE:
            from importlib import import_module

            return import_module(f"funcopt.{name}")
        return _strangers(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *ON_FIRST_USE})
