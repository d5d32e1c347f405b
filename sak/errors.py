"""The one exception for mistakes that the user can mend."""


class UserError(ValueError):
    """A mistake in a config, a path or a file: its message is one sentence that says what, where and what to do.

    The entry points in `tools` print it without a traceback and exit with code 2. Anything else that is
    raised is a defect of the library and keeps its traceback.
    """
