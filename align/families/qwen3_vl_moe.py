"""Qwen3-VL with experts. A layer's experts and their router are no linear layers, so an adapter has
only its attention: `lora.target_modules=q_proj,k_proj,v_proj,o_proj`.
"""

from dataclasses import replace

from align.families.qwen3_vl import FAMILY as QWEN3_VL

FAMILY = replace(QWEN3_VL, model_type="qwen3_vl_moe")
