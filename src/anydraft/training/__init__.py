"""Training drafters: the target's own answers, and networks that learn to foresee them."""
