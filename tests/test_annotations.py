"""The annotations of arguments and results hold wherever a choice of the other tests goes."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
CHOICE = (
    "algorithms/test_learned.py::test_types_and_shapes[diagonal-float32-False-float32]",
    "algorithms/test_protocol.py::test_gradient_and_phi_have_the_shapes_and_types_of_theta"
    "[imaml-float32]",
    "algorithms/test_unpulled.py::test_too_few_rows_are_flagged",
    "grouped/test_curves.py::test_predictions_of_a_line_are_those_of_the_joint_gaussian",
    "grouped/test_held_back.py::test_a_group_shows_its_first_rows_and_is_scored_on_the_others",
    "grouped/test_logistic.py::test_the_evidence_integrates_every_group_and_the_products_weights"
    "[learned]",
    "grouped/test_logistic.py::test_what_is_not_known_of_the_population_is_part_of_the_variance",
    "grouped/test_mixed_model.py::test_the_pool_takes_the_model_that_predicts_held_back_groups",
    "grouped/test_vectors.py::test_classes_of_unequal_counts_weigh_the_same",
    "grouped/test_vectors.py::test_the_whitened_map_is_that_of_dense_covariances",
    "implicit/test_root_silent_faults.py::test_only_the_failing_members_of_a_batch_are_nan",
    "linear/test_linear_solvers.py::test_a_right_hand_side_of_zero_has_the_solution_zero[bicgstab]",
    "linear/test_linear_solvers.py::test_a_right_hand_side_of_zero_has_the_solution_zero[minres]",
    "linear/test_linear_solvers.py::test_a_right_hand_side_of_zero_has_the_solution_zero[neumann]",
    "linear/test_linear_solvers.py::test_a_right_hand_side_of_zero_has_the_solution_zero[nystrom]",
    "meta/test_evaluation.py::test_scores_are_those_of_the_documented_tasks",
    "meta/test_pretraining.py::test_the_loss_is_that_of_a_cosine_classifier",
    "models/test_models.py::test_losses_and_accuracy_by_hand",
    "models/test_models.py::test_products_with_the_hessian_are_differences_of_the_gradient[none]",
    "runs/test_runs_fitted_tables.py::test_classes_are_scored_saved_and_predicted_from[three]",
    "sklearn/test_curve_regressor.py"
    "::test_what_was_learned_is_near_what_was_drawn_and_read_by_name",
    "sklearn/test_few_shot.py::test_base_classes_are_predicted_too",
    "sklearn/test_few_shot.py::test_classes_that_cannot_be_held_back_are_said",
    "sklearn/test_few_shot.py::test_probabilities_are_nearer_to_what_is_right_than_those_of_logistic_regression"
    "[1]",
    "sklearn/test_few_shot.py::test_strangers_are_of_none_of_the_classes",
    "sklearn/test_meta_regressor.py::test_a_group_that_adapts_on_its_rows_is_the_group_of_fit",
    "sklearn/test_meta_regressor.py::test_intervals_hold_what_they_say_and_are_wider_for_strangers",
    "sklearn/test_meta_regressor.py::test_known_groups_are_predicted_better_than_unknown_ones",
    "solvers/test_newton_cg.py::test_tasks_side_by_side_do_as_one_after_the_other[fixed]",
    "study/test_study_noise.py::test_the_gradient_of_the_expectation_is_that_of_quadrature[5]",
    "tasks/test_tasks_batches.py::test_views_are_labels_of_their_own[True-True-8]",
    "tasks/test_tasks_distortion.py"
    "::test_what_comes_from_beyond_the_edge_has_the_colour_of_the_ground",
    "tasks/test_tasks_episodes.py::test_shapes_types_and_label_order",
    "tasks/test_tasks_folder.py::test_pictures_to_adapt_to_are_read_as_those_of_the_training",
    "tasks/test_tasks_images.py::test_class_folders_come_in_order",
    "tasks/test_tasks_sinusoid.py::test_points_lie_on_one_sine_wave",
    "tasks/test_tasks_vectors.py::test_rows_are_sorted_into_the_classes_of_their_labels"
    "[labels0-names0]",
    "tasks/test_tasks_vectors.py::test_training_classes_get_the_mean_0_and_the_deviation_1",
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
