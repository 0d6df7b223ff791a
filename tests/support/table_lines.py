"""Results for tables, and the lines and cells of a table."""

from align.report.tables.all_tables import tables_of

GUARD = ("llamaguard", "1 (meta-llama/Llama-Guard-3-8B)")
YES, NO = (True,) * 40, (False,) * 40
LEAKY = {
    "jailbreakv_raw": ("vsil", (True,) * 30 + (False,) * 10),
    "jailbreakv_jailbreak": ("vsil", (True,) * 10 + (False,) * 30),
}
ABILITY = {
    "mme": {"mme_cognition_score": 340.0, "mme_perception_score": 1500.0},
    "mmmu_val": {"mmmu_acc": 0.35},
    "mmstar": {"average": 0.33},
    "mmvet": {"gpt_eval_score": 29.5},
}


def table(arms, name, comparisons=()):
    """The table of that name."""
    return next(one for one in tables_of(arms, list(comparisons)) if one.name == name)


def line(table, label):
    """{column: cell} of a line."""
    of_label = next(one for one in table.lines if one.label == label)
    return {column.name: cell for column, cell in zip(table.columns, of_label.cells, strict=True)}
