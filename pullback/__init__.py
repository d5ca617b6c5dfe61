"""Few-shot learning by implicit gradients, on JAX."""
