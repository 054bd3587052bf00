"""Training: feature cache, augmentation, recipe, cross-validation, trained models."""
