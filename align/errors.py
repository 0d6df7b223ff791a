"""The one error type of the project: a message for the person who can mend the cause."""


class UserError(Exception):
    """Something the user gave cannot be used; the message names it, what was expected and what to do.

    Commands print the message alone, without a traceback, and exit with status 2.
    """
