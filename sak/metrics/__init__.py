"""The numerics of the metrics; no model code."""

Metrics = dict[str, dict[str, float]]  # {task: {metric: value}}, as in metrics.json
