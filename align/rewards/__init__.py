"""Rewards of responses: reward models, judges, refusal phrases, or a function of the user."""
