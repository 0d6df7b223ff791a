"""vsil-align: does aligning a vision-language model on text alone make it safe when the danger shows only in the image?"""

import logging
import os

# trl reports usage to its maintainers when a trainer is built; an offline cluster node or a private model should not.
# A user who wants it sets the variable to 0 beforehand.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# peft imports bitsandbytes wherever it is installed, which then tells every user of a CPU about a faster kernel for 4-bit weights.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"
