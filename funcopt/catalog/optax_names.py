"""The public names of optax 0.2.8 that a library of its kind should have, by how much they are missed where they are not.

Facts, as `coverage.py` reads them: names with the namespace of optax in which they stand. Left out are losses, assignment,
perturbations and what optax itself has given up.
"""

__all__ = ["MERGED", "MUST", "SHOULD"]

MUST = """
    GradientTransformation EmptyState OptState ScalarOrSchedule Schedule identity set_to_zero stateless stateless_with_tree_map
    apply_updates incremental_update
    chain named_chain partition masked freeze selective_transform MaskedNode conditionally_mask conditionally_transform apply_if_finite
    MultiSteps skip_not_finite flatten
    adafactor adagrad adam adamw lamb lars lion radam rmsprop sgd
    contrib.dpsgd contrib.differentially_private_aggregate contrib.muon contrib.MuonDimensionNumbers contrib.reduce_on_plateau
    contrib.schedule_free contrib.schedule_free_adamw contrib.schedule_free_eval_params
    scale scale_by_adam scale_by_factored_rms scale_by_learning_rate scale_by_lion scale_by_param_block_rms scale_by_radam scale_by_rms
    scale_by_rss scale_by_schedule scale_by_stddev scale_by_trust_ratio trace ema contrib.scale_by_muon
    clip clip_by_global_norm clip_by_block_rms adaptive_grad_clip per_example_global_norm_clip
    add_decayed_weights zero_nans
    lbfgs scale_by_lbfgs scale_by_zoom_linesearch scale_by_backtracking_linesearch value_and_grad_from_state
    constant_schedule linear_schedule polynomial_schedule exponential_decay cosine_decay_schedule piecewise_constant_schedule
    join_schedules warmup_constant_schedule warmup_cosine_decay_schedule
    inject_hyperparams
    tree_map_params tree.get tree.get_all_with_path tree.set tree.cast tree.zeros_like tree.norm tree.add tree.sub tree.mul tree.scale
    tree.add_scale tree.vdot update_moment update_moment_per_elem_norm bias_correction
    safe_increment safe_norm global_norm
    ApplyIfFiniteState ConditionallyMaskState ConditionallyTransformState EmaState FactoredState InjectStatefulHyperparamsState
    MaskedState MultiStepsState PartitionState ScaleByAdamState ScaleByBacktrackingLinesearchState ScaleByLBFGSState ScaleByLionState
    ScaleByRStdDevState ScaleByRmsState ScaleByRssState ScaleByScheduleState ScaleByZoomLinesearchState ZoomLinesearchInfo TraceState
    ZeroNansState contrib.DifferentiallyPrivateAggregateState contrib.MuonState contrib.ReduceLROnPlateauState contrib.ScheduleFreeState
""".split()

SHOULD = """
    TransformInitFn TransformUpdateFn MaskOrFn ShouldSkipUpdateFunction transforms.ConditionFn schedules.StatefulSchedule
    init_empty_state
    periodic_update
    skip_large_updates apply_every lookahead LookaheadParams
    adabelief adadelta adamax adamaxw adan amsgrad fromage nadam nadamw noisy_sgd novograd optimistic_adam_v2
    optimistic_gradient_descent polyak_sgd rprop sign_sgd signum sm3 yogi
    contrib.acprop contrib.ademamix contrib.simplified_ademamix contrib.adopt contrib.cocob contrib.dadapt_adamw contrib.dog
    contrib.dowg contrib.galore contrib.GaLoreDimensionNumbers contrib.hutchinson_estimator_diag_hessian contrib.madgrad
    contrib.mechanize contrib.momo contrib.momo_adam contrib.normalize contrib.prodigy contrib.sam contrib.schedule_free_sgd
    contrib.sophia contrib.split_real_and_imaginary
    scale_by_adadelta scale_by_adamax scale_by_adan scale_by_amsgrad scale_by_belief scale_by_distance_over_gradients scale_by_novograd
    scale_by_optimistic_gradient scale_by_param_block_norm scale_by_polyak scale_by_rprop scale_by_sign scale_by_sm3 scale_by_yogi
    normalize_by_update_norm centralize contrib.scale_by_acprop contrib.scale_by_ademamix contrib.scale_by_adopt contrib.scale_by_cocob
    contrib.scale_by_galore contrib.scale_by_madgrad contrib.scale_by_simplified_ademamix
    per_example_layer_norm_clip transforms.unitwise_norm transforms.unitwise_clip
    add_noise keep_params_nonnegative monitor snapshot measure_with_ema
    cosine_onecycle_schedule linear_onecycle_schedule piecewise_interpolate_schedule sgdr_schedule warmup_exponential_decay_schedule
    WrappedSchedule
    tree.cast_like tree.dtype tree.ones_like tree.full_like tree.div tree.sum tree.max tree.min tree.size tree.clip tree.where
    tree.allclose tree.conj tree.real tree.batch_shape tree.random_like tree_utils.NamedTupleKey update_infinity_moment
    safe_root_mean_squares power_iteration
    ApplyEvery AddNoiseState LookaheadState MonitorState ScaleByAdaDeltaState ScaleByAdanState ScaleByAmsgradState ScaleByBeliefState
    ScaleByNovogradState ScaleByRpropState ScaleBySM3State SnapshotState contrib.COCOBState contrib.DAdaptAdamWState contrib.DoGState
    contrib.DoWGState contrib.GaLoreState contrib.HutchinsonState contrib.MadgradState contrib.MechanicState contrib.MomoAdamState
    contrib.MomoState contrib.ProdigyState contrib.SAMState contrib.ScaleByAdemamixState contrib.ScaleBySimplifiedAdEMAMixState
    contrib.SophiaState contrib.SplitRealAndImaginaryState
    projections.projection_non_negative projections.projection_box projections.projection_hypercube projections.projection_simplex
    projections.projection_l1_sphere projections.projection_l1_ball projections.projection_l2_sphere projections.projection_l2_ball
    projections.projection_linf_ball projections.projection_vector projections.projection_hyperplane projections.projection_halfspace
    microbatch microbatching.micro_grad microbatching.Accumulator microbatching.AccumulationType
""".split()

# A second protocol beside the first, which here is one.
MERGED = """
    GradientTransformationExtraArgs TransformUpdateExtraArgsFn with_extra_args_support
""".split()
