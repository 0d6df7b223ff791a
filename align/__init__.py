"""vsil-align: does aligning a vision-language model on text alone make it safe when the danger
shows only in the image?
"""

import logging
import os

# trl sends usage data to its maintainers when a trainer is built. Off by default, for offline cluster nodes and private
# models; to allow it, set the variable to 0.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

# peft imports bitsandbytes if it is installed, and bitsandbytes then recommends a faster 4-bit kernel on every CPU.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.2.0"
