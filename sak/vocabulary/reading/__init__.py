"""A trained model at work: pictures and prompts, a page to try it on, its evaluation beside other readers."""
