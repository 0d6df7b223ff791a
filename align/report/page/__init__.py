"""Run folders -> one self-contained HTML page (`align report`)."""
