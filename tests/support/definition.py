"""What a model says of an answer, by the definition: one row alone, no padding, the whole vocabulary."""

import torch


def distributions(it, renderer, row, answer):
    """(log p over the vocabulary at each token of an answer, its token ids), one row alone, by the definition."""
    rendered = renderer.render(row, answer)
    ids = torch.tensor([rendered.prompt_ids + rendered.answer_ids])
    aligned = {key: torch.tensor([value + [0] * len(rendered.answer_ids)]) for key, value in rendered.aligned.items()}
    with torch.no_grad():
        logits = it(input_ids=ids, attention_mask=torch.ones_like(ids), **aligned, **rendered.image_inputs).logits[0]
    return logits[len(rendered.prompt_ids) - 1 : -1].double().log_softmax(-1), torch.tensor(rendered.answer_ids)
