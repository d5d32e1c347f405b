"""Which teachers are worth having: greedy selection and Shapley values."""
