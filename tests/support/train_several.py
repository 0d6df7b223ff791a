"""Train several runs one after another in the processes of one launch:  train_several.py <arguments
of a run> -- <of the next> ...

Starting Python is most of what a small run takes.
"""

import sys
from itertools import groupby

from align.config.compose import compose_run
from align.training.run import train

for separator, arguments in groupby(sys.argv[1:], key=lambda argument: argument == "--"):
    if not separator:
        train(compose_run(list(arguments)))
