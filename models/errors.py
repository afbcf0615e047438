"""The error that every floor raises for a user's mistake."""


class UserError(ValueError):
    """One line that says what is wrong, where, and what to do; shown without a traceback."""
