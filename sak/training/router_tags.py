"""What a run's events call the mean weights of its routers: ``GROUP/TASK/blockN/SOURCE``."""

VALIDATION, TRAINING = "routing", "routing_training"  # groups: means over the validation set, or over a step's batch


def weight_tag(task: str, block: int, source: str) -> str:
    """Within a group."""
    return f"{task}/block{block}/{source}"
