"""Whole tables: every row, seed and fold of an experiment trained, measured and set beside the papers' figures."""
