"""What everything else stands on: errors, results, registries, pytree arithmetic, the problem."""
