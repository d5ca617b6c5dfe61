"""The annotations of arguments and results hold wherever a choice of the other tests goes."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
CHOICE = (
    "algorithms/test_learned.py::test_types_and_shapes",
    "algorithms/test_protocol.py::test_gradient_and_phi_have_the_shapes_and_types_of_theta"
    "[imaml-float32]",
    "grouped",
    "implicit/test_root_silent_faults.py::test_only_the_failing_members_of_a_batch_are_nan",
    "implicit/test_root_silent_faults.py::test_a_linear_solver_that_stops_early_gives_nan[jacfwd]",
    "linear/test_linear_solvers.py::test_a_right_hand_side_of_zero_has_the_solution_zero",
    "linear/test_linear_solvers.py::test_a_nan_in_the_support_set_is_never_silent[lbfgs-dense]",
    "meta/test_evaluation.py::test_scores_are_those_of_the_documented_tasks",
    "meta/test_pretraining.py::test_the_loss_is_that_of_a_cosine_classifier",
    "models/test_models.py::test_products_with_the_hessian_are_differences_of_the_gradient",
    "models/test_models.py::test_mlp_is_the_chain_of_its_layers",
    "models/test_models.py::test_losses_and_accuracy_by_hand",
    "solvers/test_lbfgs_tolerance.py::test_too_few_steps_are_the_fixed_steps",
    "runs/test_runs_fitted_tables.py",
    "sklearn/test_curve_regressor.py::test_what_was_learned_is_near_what_was_drawn_and_read_by_name",
    "sklearn/test_curve_regressor.py::test_a_group_that_adapts_on_its_rows_is_the_group_of_fit",
    "sklearn/test_curve_regressor.py::test_what_cannot_be_is_refused_before_any_fit",
    "sklearn/test_few_shot.py",
    "sklearn/test_meta_regressor.py",
    "sklearn/test_saving.py::test_predictions_are_the_same_to_the_bit",
    "solvers/test_newton_cg.py::test_tasks_side_by_side_do_as_one_after_the_other",
    "study/test_study_noise.py",
    "tasks/test_tasks_batches.py",
    "tasks/test_tasks_distortion.py::test_what_comes_from_beyond_the_edge_has_the_colour_of_the_ground",
    "tasks/test_tasks_episodes.py::test_shapes_types_and_label_order",
    "tasks/test_tasks_folder.py",
    "tasks/test_tasks_images.py",
    "tasks/test_tasks_sinusoid.py",
    "tasks/test_tasks_splits.py",
    "tasks/test_tasks_vectors.py",
)
"""Every room below the command line, by tests that trace much and compute little."""


def test_arguments_and_results_are_as_annotated():
    """In a process of its own, since the package's modules are read anew."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short"]
    command += ["--jaxtyping-packages=pullback,annotations.checked", "-m", "not wrong_types"]
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent), *filter(None, sys.path)])
    done = subprocess.run(
        [*command, *(str(TESTS / chosen) for chosen in CHOICE)],
        env=os.environ | {"PYTHONPATH": paths, "PYTEST_ADDOPTS": ""},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
