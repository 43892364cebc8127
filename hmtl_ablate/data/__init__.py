"""From a dataset on disk to a pack, its splits, and the views that a model sees."""

from hmtl_ablate.data import sets as sets  # registers the built-in datasets before anything else can ask for one
