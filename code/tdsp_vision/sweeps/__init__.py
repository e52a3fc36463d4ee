"""Many runs of the modeling notebook: grids, searches, one machine or many."""
