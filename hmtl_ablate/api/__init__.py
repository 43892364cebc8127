"""The Python API behind `import hmtl_ablate as ha`: trials, studies and trained models. docs/python.md is its page."""
