"""The paper's claims, measured on one config: which students are compared, and what comes of it."""
