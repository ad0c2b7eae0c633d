"""The loader's own data in the target: checkpoints, positions, markers, locks, baselines, digests, history."""
