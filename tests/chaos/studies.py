"""The studies that are run: a few trials of seconds each, whose numbers depend on nothing but their configs."""

from __future__ import annotations

PLAIN = """\
name: plain
question: Does it survive?
base:
  data: {images: 96, size: 16}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 4, warmup_epochs: 0}
variants:
  SL: {}
  SL + puzzling: {pretext: {puzzling: {feed: siamese, grid: 2}}}
seeds: [0, 1]
search:
  space: {training.lr: {choice: [0.001, 0.002]}}
  sampler: grid      # the same trials in every order
  trials: 2
  racing: null
"""
WORKERS = """\
name: workers
question: Does it survive on two workers?
base:
  data: {images: 96, size: 16}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 4, warmup_epochs: 0}
variants:
  SL: {}
  SL + puzzling: {pretext: {puzzling: {feed: siamese, grid: 2}}}
seeds: [0]
resources: {workers: 2}
"""
STUDIES = {"plain": PLAIN, "workers": WORKERS}
"""Name → text of the study file."""
