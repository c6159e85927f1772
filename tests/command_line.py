"""The commands, called as from a shell."""

import pytest

from weakseg.cli import main


def call(*arguments):
    return main([str(argument) for argument in arguments])


def usage_error(*arguments):
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    return caught.value.code
