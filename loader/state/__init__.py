"""The loader's own data in the target: checkpoints, markers, locks, baselines, digests, history."""
