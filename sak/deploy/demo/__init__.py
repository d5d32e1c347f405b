"""A page on which one tries a student, with gradio."""
