"""Stage 2, modeling: from a manifest to a run folder with a model, its scores and how far to trust them."""
