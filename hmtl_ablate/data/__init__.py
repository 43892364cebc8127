"""From a dataset on disk to a pack, its splits, and the views a model is shown."""
