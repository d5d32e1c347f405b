"""What several scales do for a small frozen model, beside a larger one."""
