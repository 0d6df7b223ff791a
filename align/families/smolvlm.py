"""SmolVLM and SmolVLM2: Idefics3 with smaller parts. Its processor needs the package num2words."""

from dataclasses import replace

from align.families.idefics3 import FAMILY as IDEFICS3

FAMILY = replace(IDEFICS3, model_type="smolvlm")
